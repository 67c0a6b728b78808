"""The fused recurrence as custom operators of torch, so that autograd, torch.compile and autocast know it.

`urzoo::lstm_scan` runs the whole sequence, `urzoo::lstm_scan_backward` differentiates it. Both take the bias
with the gate bias already in it: how the gate bias enters is a matter of gates.py, not of the C++ source. With
`bf16` the factors of the products are rounded to bfloat16, outputs and final hidden state too, whatever the
arguments are: bfloat16 or float32 each, the bias always float32.
"""

from typing import Any

import torch
from torch import Tensor

from urzoo.recurrence.cpu.passes import Kind, Sequence, backward, forward, saved_shape, step
from urzoo.recurrence.gates import State

Gradients = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


@torch.library.custom_op("urzoo::lstm_scan", mutates_args=(), device_types="cpu")
def lstm_scan(
    inputs: Tensor,
    input_weight: Tensor,
    recurrent_weight: Tensor,
    bias: Tensor | None,
    hidden: Tensor,
    cell: Tensor,
    mask: Tensor | None,
    tied: bool,  # noqa: FBT001
    refined: bool,  # noqa: FBT001
    master: bool,  # noqa: FBT001
    ordered: bool,  # noqa: FBT001
    reverse: bool,  # noqa: FBT001
    bf16: bool,  # noqa: FBT001
    save: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Outputs, final hidden state, final cell, and what the backward pass needs by `save`, "nothing" included."""
    kind = Kind(tied, refined, reverse, bf16=bf16, master=master, ordered=ordered)
    sequence = make_sequence(kind, inputs, input_weight, recurrent_weight, bias, (hidden, cell), mask)
    outputs, (final_hidden, final_cell), saved = forward(sequence, kind, save)
    return outputs, final_hidden, final_cell, saved


@lstm_scan.register_fake
def _(
    inputs: Tensor,
    input_weight: Tensor,  # noqa: ARG001
    recurrent_weight: Tensor,  # noqa: ARG001
    bias: Tensor | None,  # noqa: ARG001
    hidden: Tensor,
    cell: Tensor,
    mask: Tensor | None,  # noqa: ARG001
    tied: bool,  # noqa: FBT001
    refined: bool,  # noqa: FBT001
    master: bool,  # noqa: FBT001
    ordered: bool,  # noqa: FBT001
    reverse: bool,  # noqa: FBT001
    bf16: bool,  # noqa: FBT001
    save: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    kind = Kind(tied, refined, reverse, bf16=bf16, master=master, ordered=ordered)
    outputs = inputs.new_empty(inputs.shape[0], inputs.shape[1], hidden.shape[1], dtype=kind.dtype)
    saved = inputs.new_empty(saved_shape(inputs, hidden, kind, save), dtype=torch.float32)
    return outputs, like(hidden, kind.dtype), like(cell, torch.float32), saved


@torch.library.custom_op("urzoo::lstm_scan_backward", mutates_args=(), device_types="cpu")
def lstm_scan_backward(
    outputs_grad: Tensor | None,
    final_hidden_grad: Tensor | None,
    final_cell_grad: Tensor | None,
    inputs: Tensor,
    input_weight: Tensor,
    recurrent_weight: Tensor,
    bias: Tensor | None,
    hidden: Tensor,
    cell: Tensor,
    mask: Tensor | None,
    outputs: Tensor,
    saved: Tensor,
    tied: bool,  # noqa: FBT001
    refined: bool,  # noqa: FBT001
    master: bool,  # noqa: FBT001
    ordered: bool,  # noqa: FBT001
    reverse: bool,  # noqa: FBT001
    bf16: bool,  # noqa: FBT001
    save: str,
    wants_inputs: bool,  # noqa: FBT001
) -> Gradients:
    """Gradients of inputs (empty unless wanted), input weight, recurrent weight, bias, hidden and cell."""
    kind = Kind(tied, refined, reverse, bf16=bf16, master=master, ordered=ordered)
    sequence = make_sequence(kind, inputs, input_weight, recurrent_weight, bias, (hidden, cell), mask)
    grads = contiguous(outputs_grad), contiguous(final_hidden_grad), contiguous(final_cell_grad)
    found = backward(sequence, kind, save, outputs, saved, grads, wants_inputs=wants_inputs)
    # The gradient of each argument in the dtype of the argument; those of float32 arguments were never rounded.
    return (
        found[0].to(inputs.dtype),
        found[1].to(input_weight.dtype),
        found[2].to(recurrent_weight.dtype),
        found[3],
        found[4].to(hidden.dtype),
        found[5].to(cell.dtype),
    )


@lstm_scan_backward.register_fake
def _(
    outputs_grad: Tensor | None,  # noqa: ARG001
    final_hidden_grad: Tensor | None,  # noqa: ARG001
    final_cell_grad: Tensor | None,  # noqa: ARG001
    inputs: Tensor,
    input_weight: Tensor,
    recurrent_weight: Tensor,
    bias: Tensor | None,  # noqa: ARG001
    hidden: Tensor,
    cell: Tensor,
    mask: Tensor | None,  # noqa: ARG001
    outputs: Tensor,  # noqa: ARG001
    saved: Tensor,  # noqa: ARG001
    tied: bool,  # noqa: FBT001, ARG001
    refined: bool,  # noqa: FBT001, ARG001
    master: bool,  # noqa: FBT001, ARG001
    ordered: bool,  # noqa: FBT001, ARG001
    reverse: bool,  # noqa: FBT001, ARG001
    bf16: bool,  # noqa: FBT001, ARG001
    save: str,  # noqa: ARG001
    wants_inputs: bool,  # noqa: FBT001
) -> Gradients:
    inputs_grad = inputs.new_empty(inputs.shape if wants_inputs else (0,))
    bias_grad = inputs.new_empty(input_weight.shape[0], dtype=torch.float32)
    return inputs_grad, like(input_weight), like(recurrent_weight), bias_grad, like(hidden), like(cell)


@torch.library.custom_op("urzoo::lstm_step", mutates_args=(), device_types="cpu")
def lstm_step(
    inputs: Tensor,
    input_weight: Tensor,
    recurrent_weight: Tensor,
    bias: Tensor | None,
    hidden: Tensor,
    cell: Tensor,
    tied: bool,  # noqa: FBT001
    refined: bool,  # noqa: FBT001
    master: bool,  # noqa: FBT001
    ordered: bool,  # noqa: FBT001
    bf16: bool,  # noqa: FBT001
) -> tuple[Tensor, Tensor]:
    """Hidden state and cell after one step, inputs `(batch, input_size)`; not differentiable."""
    kind = Kind(tied, refined, reverse=False, bf16=bf16, master=master, ordered=ordered)
    sequence = make_sequence(kind, inputs[:, None], input_weight, recurrent_weight, bias, (hidden, cell))
    hidden, cell = step(sequence, kind)
    return hidden, cell


@lstm_step.register_fake
def _(
    inputs: Tensor,  # noqa: ARG001
    input_weight: Tensor,  # noqa: ARG001
    recurrent_weight: Tensor,  # noqa: ARG001
    bias: Tensor | None,  # noqa: ARG001
    hidden: Tensor,
    cell: Tensor,
    tied: bool,  # noqa: FBT001, ARG001
    refined: bool,  # noqa: FBT001, ARG001
    master: bool,  # noqa: FBT001, ARG001
    ordered: bool,  # noqa: FBT001, ARG001
    bf16: bool,  # noqa: FBT001
) -> tuple[Tensor, Tensor]:
    return like(hidden, torch.bfloat16 if bf16 else torch.float32), like(cell, torch.float32)


def make_sequence(
    kind: Kind,
    inputs: Tensor,
    input_weight: Tensor,
    recurrent_weight: Tensor,
    bias: Tensor | None,
    state: State,
    mask: Tensor | None = None,
) -> Sequence:
    """The arguments of an operator, contiguous and in the dtypes that the library takes."""
    if input_weight.dtype != recurrent_weight.dtype:
        input_weight, recurrent_weight = input_weight.float(), recurrent_weight.float()
    weights = input_weight.contiguous(), recurrent_weight.contiguous(), contiguous(bias)
    dtypes = kind.state_dtypes
    state = tuple(part.to(dtype).contiguous() for part, dtype in zip(state, dtypes, strict=True))
    return Sequence(inputs.to(kind.dtype).contiguous(), *weights, state, contiguous(mask))


def contiguous(tensor: Tensor | None) -> Tensor | None:
    """The tensor made contiguous, or None."""
    return None if tensor is None else tensor.contiguous()


def like(tensor: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """An empty tensor of the same shape, contiguous whatever the strides; of the same dtype when omitted."""
    return tensor.new_empty(tensor.shape, dtype=dtype)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    tensors, options = inputs[:7], inputs[7:]
    outputs, _, _, saved = output
    ctx.save_for_backward(*tensors, outputs, saved)
    ctx.options = options
    # What is saved is an output of the operator: its gradient, never asked for, must not be made of zeros.
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    # Asked for once: under activation checkpointing a second look would compute the forward pass again.
    saved = ctx.saved_tensors
    bias = saved[3]
    wants_inputs = ctx.needs_input_grad[0]
    inputs_grad, *weight_grads, bias_grad, hidden_grad, cell_grad = lstm_scan_backward(
        *grads[:3], *saved, *ctx.options, wants_inputs
    )
    leading = (inputs_grad if wants_inputs else None, *weight_grads, None if bias is None else bias_grad)
    return (*leading, hidden_grad, cell_grad, *(None,) * (1 + len(ctx.options)))


lstm_scan.register_autograd(_backward, setup_context=_setup_context)
