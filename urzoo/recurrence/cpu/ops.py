"""The fused recurrence as custom operators of torch, so that autograd, torch.compile and autocast know it.

`urzoo::cpu_scan` runs the whole sequence, `urzoo::cpu_scan_backward` differentiates it, `urzoo::cpu_step` takes one
step, of few rows without packing the weights. All take the bias with the gate bias already in it: how the gate bias
enters is a matter of gates.py, not of the C++ source. What they compute is one string, that of `Kind`; `dtype` is that
of the factors of the products and of the outputs, whatever the arguments are: bfloat16 or float32 each, the bias
float32. The GRU has no cell: None goes in and an empty tensor comes out.
"""

from typing import Any

import torch
from torch import Tensor

from urzoo.recurrence.cpu.memory import empty
from urzoo.recurrence.cpu.passes import (
    FEW_ROWS,
    FusedKind,
    Sequence,
    backward,
    forward,
    multiplied_as,
    saved_shape,
    step,
    weights_alike,
)
from urzoo.recurrence.derivatives import ScanOptions, refuse, second_derivatives
from urzoo.recurrence.gates import State

Gradients = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


@torch.library.custom_op("urzoo::cpu_scan", mutates_args=(), device_types="cpu")
def cpu_scan(
    inputs: Tensor,
    input_weight: Tensor,
    recurrent_weight: Tensor,
    bias: Tensor | None,
    hidden: Tensor,
    cell: Tensor | None,
    mask: Tensor | None,
    kind: str,
    dtype: torch.dtype,
    save: str,
    named: bool,  # noqa: ARG001, FBT001  (operators have no keyword arguments of this kind)
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Outputs, final hidden state, final cell, and what the backward pass needs by `save`, "nothing" included.

    `named` says that the caller chose this back end by its name, so that second derivatives are refused.
    """
    what = FusedKind.read(kind, dtype)
    sequence = make_sequence(what, inputs, input_weight, recurrent_weight, bias, _state(hidden, cell), mask)
    outputs, final, saved = forward(sequence, what, save)
    return outputs, final[0], _cell(final), saved


@cpu_scan.register_fake
def _(
    inputs: Tensor,
    input_weight: Tensor,  # noqa: ARG001
    recurrent_weight: Tensor,  # noqa: ARG001
    bias: Tensor | None,  # noqa: ARG001
    hidden: Tensor,
    cell: Tensor | None,
    mask: Tensor | None,  # noqa: ARG001
    kind: str,
    dtype: torch.dtype,
    save: str,
    named: bool,  # noqa: FBT001, ARG001
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    what = FusedKind.read(kind, dtype)
    outputs = inputs.new_empty(inputs.shape[0], inputs.shape[1], hidden.shape[1], dtype=dtype)
    saved = inputs.new_empty(saved_shape(inputs, hidden, what, save), dtype=torch.float32)
    return outputs, like(hidden, what.state_dtypes[0]), _like_cell(hidden, cell), saved


@torch.library.custom_op("urzoo::cpu_scan_backward", mutates_args=(), device_types="cpu")
def cpu_scan_backward(
    outputs_grad: Tensor | None,
    final_hidden_grad: Tensor | None,
    final_cell_grad: Tensor | None,
    inputs: Tensor,
    input_weight: Tensor,
    recurrent_weight: Tensor,
    bias: Tensor | None,
    hidden: Tensor,
    cell: Tensor | None,
    mask: Tensor | None,
    outputs: Tensor,
    saved: Tensor,
    kind: str,
    dtype: torch.dtype,
    save: str,
    named: bool,  # noqa: ARG001, FBT001
    wants_inputs: bool,  # noqa: FBT001
) -> Gradients:
    """Gradients of inputs (empty unless wanted), input weight, recurrent weight, bias, hidden and cell."""
    what = FusedKind.read(kind, dtype)
    sequence = make_sequence(what, inputs, input_weight, recurrent_weight, bias, _state(hidden, cell), mask)
    grads = contiguous(outputs_grad), contiguous(final_hidden_grad), contiguous(final_cell_grad)
    # Hooks of saved tensors may have handed back others of the same values.
    outputs, saved = outputs.contiguous(), saved.contiguous()
    found = backward(sequence, what, save, outputs, saved, grads[: 1 + len(sequence.state)], wants_inputs=wants_inputs)
    # The gradient of each argument in the dtype of the argument; those of float32 arguments were never rounded.
    return (
        found[0].to(inputs.dtype),
        found[1].to(input_weight.dtype),
        found[2].to(recurrent_weight.dtype),
        found[3],
        found[4].to(hidden.dtype),
        empty(0) if cell is None else found[5].to(cell.dtype),
    )


@cpu_scan_backward.register_fake
def _(
    outputs_grad: Tensor | None,  # noqa: ARG001
    final_hidden_grad: Tensor | None,  # noqa: ARG001
    final_cell_grad: Tensor | None,  # noqa: ARG001
    inputs: Tensor,
    input_weight: Tensor,
    recurrent_weight: Tensor,
    bias: Tensor | None,  # noqa: ARG001
    hidden: Tensor,
    cell: Tensor | None,
    mask: Tensor | None,  # noqa: ARG001
    outputs: Tensor,  # noqa: ARG001
    saved: Tensor,  # noqa: ARG001
    kind: str,  # noqa: ARG001
    dtype: torch.dtype,  # noqa: ARG001
    save: str,  # noqa: ARG001
    named: bool,  # noqa: FBT001, ARG001
    wants_inputs: bool,  # noqa: FBT001
) -> Gradients:
    inputs_grad = inputs.new_empty(inputs.shape if wants_inputs else (0,))
    bias_grad = inputs.new_empty(input_weight.shape[0], dtype=torch.float32)
    cell_grad = hidden.new_empty(0, dtype=torch.float32) if cell is None else like(cell)
    return inputs_grad, like(input_weight), like(recurrent_weight), bias_grad, like(hidden), cell_grad


@torch.library.custom_op("urzoo::cpu_step", mutates_args=(), device_types="cpu")
def cpu_step(
    inputs: Tensor,
    input_weight: Tensor,
    recurrent_weight: Tensor,
    bias: Tensor | None,
    hidden: Tensor,
    cell: Tensor | None,
    kind: str,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """Hidden state and cell after one step, inputs `(batch, input_size)`; not differentiable."""
    what = FusedKind.read(kind, dtype)
    input_weight, recurrent_weight = weights_alike(input_weight, recurrent_weight)
    # Chosen here, where a program that is exported does not see it: its rows would be few, or many, for ever.
    few = inputs.shape[0] <= FEW_ROWS
    way = multiplied_as(what, recurrent_weight.dtype) if few else what
    sequence = make_sequence(way, inputs[:, None], input_weight, recurrent_weight, bias, _state(hidden, cell))
    final = step(sequence, way) if few else forward(sequence, way, "nothing")[1]
    final = tuple(part.to(dtype) for part, dtype in zip(final, what.state_dtypes, strict=True))
    return final[0], _cell(final)


@cpu_step.register_fake
def _(
    inputs: Tensor,  # noqa: ARG001
    input_weight: Tensor,  # noqa: ARG001
    recurrent_weight: Tensor,  # noqa: ARG001
    bias: Tensor | None,  # noqa: ARG001
    hidden: Tensor,
    cell: Tensor | None,
    kind: str,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    return like(hidden, FusedKind.read(kind, dtype).state_dtypes[0]), _like_cell(hidden, cell)


def make_sequence(
    kind: FusedKind,
    inputs: Tensor,
    input_weight: Tensor,
    recurrent_weight: Tensor,
    bias: Tensor | None,
    state: State,
    mask: Tensor | None = None,
) -> Sequence:
    """The arguments of an operator, contiguous and in the dtypes that the library takes."""
    weights = (*weights_alike(input_weight, recurrent_weight), contiguous(bias))
    dtypes = kind.state_dtypes
    state = tuple(part.to(dtype).contiguous() for part, dtype in zip(state, dtypes, strict=True))
    return Sequence(inputs.to(kind.dtype).contiguous(), *weights, state, contiguous(mask))


def contiguous(tensor: Tensor | None) -> Tensor | None:
    """The tensor made contiguous, or None."""
    return None if tensor is None else tensor.contiguous()


def like(tensor: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """An empty tensor of the same shape, contiguous whatever the strides; of the same dtype when omitted."""
    return tensor.new_empty(tensor.shape, dtype=dtype)


def _state(hidden: Tensor, cell: Tensor | None) -> State:
    return (hidden,) if cell is None else (hidden, cell)


def _cell(final: State) -> Tensor:
    return final[1] if len(final) > 1 else empty(0)


def _like_cell(hidden: Tensor, cell: Tensor | None) -> Tensor:
    return hidden.new_empty((0,) if cell is None else cell.shape, dtype=torch.float32)


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
    bias, cell = saved[3], saved[5]
    wants_inputs = ctx.needs_input_grad[0]
    cell_upstream = None if cell is None else grads[2]
    inputs_grad, *weight_grads, bias_grad, hidden_grad, cell_grad = cpu_scan_backward(
        *grads[:2], cell_upstream, *saved, *ctx.options, wants_inputs
    )
    leading = (inputs_grad if wants_inputs else None, *weight_grads, None if bias is None else bias_grad)
    return (*leading, hidden_grad, None if cell is None else cell_grad, *(None,) * (1 + len(ctx.options)))


def _setup_second(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:  # noqa: ARG001
    ctx.save_for_backward(*inputs[:10])
    ctx.kind, ctx.dtype, _, ctx.named, _ = inputs[12:]
    ctx.set_materialize_grads(False)


def _second(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    if ctx.named:
        raise refuse("cpu", "second derivatives")
    tensors, kind = ctx.saved_tensors, FusedKind.read(ctx.kind, ctx.dtype)
    options = ScanOptions(gating=kind.gating, mask=tensors[9], reverse=kind.reverse, dtype=ctx.dtype)
    found = second_derivatives(tensors[:3], tensors[3:9], grads, **options)
    # The outputs and what was saved follow from the other arguments.
    return (*found, *(None,) * 8)


cpu_scan.register_autograd(_backward, setup_context=_setup_context)
cpu_scan_backward.register_autograd(_second, setup_context=_setup_second)
