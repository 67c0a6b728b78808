"""The fused GRU as custom operators of torch; the LSTM's are in `ops`.

`urzoo::gru_scan` runs the whole sequence, `urzoo::gru_scan_backward` differentiates it, `urzoo::gru_step` takes one
step without packing the weights. The arguments are those of the LSTM's, in the dtypes that are said there; but the
hidden state, which the GRU carries over time, is float32 whatever the dtype of the products.
"""

from typing import Any

import torch
from torch import Tensor

from urzoo.recurrence.cpu.ops import contiguous, like, make_sequence
from urzoo.recurrence.cpu.passes import Kind, backward, forward, saved_shape, step

Gradients = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


def _kind(*, refined: bool, bf16: bool, reverse: bool = False) -> Kind:
    return Kind(tied=True, refined=refined, reverse=reverse, gru=True, bf16=bf16)


@torch.library.custom_op("urzoo::gru_scan", mutates_args=(), device_types="cpu")
def gru_scan(
    inputs: Tensor,
    input_weight: Tensor,
    recurrent_weight: Tensor,
    bias: Tensor | None,
    hidden: Tensor,
    mask: Tensor | None,
    refined: bool,  # noqa: FBT001
    reverse: bool,  # noqa: FBT001
    bf16: bool,  # noqa: FBT001
    save: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """Outputs, final hidden state, and what the backward pass needs by `save`, "nothing" included."""
    kind = _kind(refined=refined, reverse=reverse, bf16=bf16)
    sequence = make_sequence(kind, inputs, input_weight, recurrent_weight, bias, (hidden,), mask)
    outputs, (final_hidden,), saved = forward(sequence, kind, save)
    return outputs, final_hidden, saved


@gru_scan.register_fake
def _(
    inputs: Tensor,
    input_weight: Tensor,  # noqa: ARG001
    recurrent_weight: Tensor,  # noqa: ARG001
    bias: Tensor | None,  # noqa: ARG001
    hidden: Tensor,
    mask: Tensor | None,  # noqa: ARG001
    refined: bool,  # noqa: FBT001
    reverse: bool,  # noqa: FBT001
    bf16: bool,  # noqa: FBT001
    save: str,
) -> tuple[Tensor, Tensor, Tensor]:
    kind = _kind(refined=refined, reverse=reverse, bf16=bf16)
    outputs = inputs.new_empty(inputs.shape[0], inputs.shape[1], hidden.shape[1], dtype=kind.dtype)
    saved = inputs.new_empty(saved_shape(inputs, hidden, kind, save), dtype=torch.float32)
    return outputs, like(hidden, torch.float32), saved


@torch.library.custom_op("urzoo::gru_scan_backward", mutates_args=(), device_types="cpu")
def gru_scan_backward(
    outputs_grad: Tensor | None,
    final_hidden_grad: Tensor | None,
    inputs: Tensor,
    input_weight: Tensor,
    recurrent_weight: Tensor,
    bias: Tensor | None,
    hidden: Tensor,
    mask: Tensor | None,
    outputs: Tensor,
    saved: Tensor,
    refined: bool,  # noqa: FBT001
    reverse: bool,  # noqa: FBT001
    bf16: bool,  # noqa: FBT001
    save: str,
    wants_inputs: bool,  # noqa: FBT001
) -> Gradients:
    """Gradients of inputs (empty unless wanted), input weight, recurrent weight, bias and hidden."""
    kind = _kind(refined=refined, reverse=reverse, bf16=bf16)
    sequence = make_sequence(kind, inputs, input_weight, recurrent_weight, bias, (hidden,), mask)
    grads = contiguous(outputs_grad), contiguous(final_hidden_grad)
    found = backward(sequence, kind, save, outputs, saved, grads, wants_inputs=wants_inputs)
    # The gradient of each argument in the dtype of the argument; those of float32 were never rounded.
    weight_grads = found[1].to(input_weight.dtype), found[2].to(recurrent_weight.dtype)
    return found[0].to(inputs.dtype), *weight_grads, found[3], found[4].to(hidden.dtype)


@gru_scan_backward.register_fake
def _(
    outputs_grad: Tensor | None,  # noqa: ARG001
    final_hidden_grad: Tensor | None,  # noqa: ARG001
    inputs: Tensor,
    input_weight: Tensor,
    recurrent_weight: Tensor,
    bias: Tensor | None,  # noqa: ARG001
    hidden: Tensor,
    mask: Tensor | None,  # noqa: ARG001
    outputs: Tensor,  # noqa: ARG001
    saved: Tensor,  # noqa: ARG001
    refined: bool,  # noqa: FBT001, ARG001
    reverse: bool,  # noqa: FBT001, ARG001
    bf16: bool,  # noqa: FBT001, ARG001
    save: str,  # noqa: ARG001
    wants_inputs: bool,  # noqa: FBT001
) -> Gradients:
    inputs_grad = inputs.new_empty(inputs.shape if wants_inputs else (0,))
    bias_grad = inputs.new_empty(input_weight.shape[0], dtype=torch.float32)
    return inputs_grad, like(input_weight), like(recurrent_weight), bias_grad, like(hidden)


@torch.library.custom_op("urzoo::gru_step", mutates_args=(), device_types="cpu")
def gru_step(
    inputs: Tensor,
    input_weight: Tensor,
    recurrent_weight: Tensor,
    bias: Tensor | None,
    hidden: Tensor,
    refined: bool,  # noqa: FBT001
    bf16: bool,  # noqa: FBT001
) -> Tensor:
    """Hidden state after one step, inputs `(batch, input_size)`; not differentiable."""
    kind = _kind(refined=refined, bf16=bf16)
    return step(make_sequence(kind, inputs[:, None], input_weight, recurrent_weight, bias, (hidden,), None), kind)[0]


@gru_step.register_fake
def _(
    inputs: Tensor,  # noqa: ARG001
    input_weight: Tensor,  # noqa: ARG001
    recurrent_weight: Tensor,  # noqa: ARG001
    bias: Tensor | None,  # noqa: ARG001
    hidden: Tensor,
    refined: bool,  # noqa: FBT001, ARG001
    bf16: bool,  # noqa: FBT001, ARG001
) -> Tensor:
    return like(hidden, torch.float32)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    tensors, options = inputs[:6], inputs[6:]
    outputs, _, saved = output
    ctx.save_for_backward(*tensors, outputs, saved)
    ctx.options = options
    # What is saved is an output of the operator: its gradient, never asked for, must not be made of zeros.
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    # Asked for once: under activation checkpointing a second look would compute the forward pass again.
    saved = ctx.saved_tensors
    bias = saved[3]
    wants_inputs = ctx.needs_input_grad[0]
    inputs_grad, *weight_grads, bias_grad, hidden_grad = gru_scan_backward(
        *grads[:2], *saved, *ctx.options, wants_inputs
    )
    leading = (inputs_grad if wants_inputs else None, *weight_grads, None if bias is None else bias_grad)
    return (*leading, hidden_grad, *(None,) * 5)


gru_scan.register_autograd(_backward, setup_context=_setup_context)
