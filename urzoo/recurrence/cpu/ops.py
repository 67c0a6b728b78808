"""The fused recurrence as custom operators of torch, so that autograd, torch.compile and autocast know it.

`urzoo::lstm_scan` runs the whole sequence, `urzoo::lstm_scan_backward` differentiates it. Both take the bias
with the gate bias already in it: how the gate bias enters is a matter of gates.py, not of the C++ source.
"""

from typing import Any

import torch
from torch import Tensor

from urzoo.recurrence.cpu.library import current
from urzoo.recurrence.cpu.memory import empty

Gradients = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


def _gates(tied: bool, refined: bool) -> int:  # noqa: FBT001
    return 3 + (not tied) + refined


def _saved_shape(inputs: Tensor, hidden: Tensor, tied: bool, refined: bool, save: bool) -> tuple[int, ...]:  # noqa: FBT001
    if not save:
        return (0,)
    batch, time, _ = inputs.shape
    width = current().width
    return (time, -(-hidden.shape[1] // width), batch, _gates(tied, refined) + 1, width)


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
    reverse: bool,  # noqa: FBT001
    save: bool,  # noqa: FBT001
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Outputs, final hidden state, final cell, and what the backward pass needs (empty unless `save`)."""
    batch, time, input_size = inputs.shape
    hidden_size = hidden.shape[1]
    outputs = empty(batch, time, hidden_size)
    final_hidden, final_cell = torch.empty_like(hidden), torch.empty_like(cell)
    saved = empty(*_saved_shape(inputs, hidden, tied, refined, save))
    tensors = [inputs, input_weight, recurrent_weight, bias, hidden, cell, mask]
    inputs, input_weight, recurrent_weight, bias, hidden, cell, mask = map(_contiguous, tensors)  # type: ignore[assignment]
    current().run(
        "forward",
        batch=batch,
        time=time,
        input_size=input_size,
        hidden_size=hidden_size,
        tied=tied,
        refined=refined,
        reverse=reverse,
        threads=torch.get_num_threads(),
        inputs=inputs,
        input_weight=input_weight,
        recurrent_weight=recurrent_weight,
        bias=bias,
        hidden=hidden,
        cell=cell,
        mask=mask,
        outputs=outputs,
        final_hidden=final_hidden,
        final_cell=final_cell,
        saved=saved if save else None,
    )
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
    reverse: bool,  # noqa: FBT001, ARG001
    save: bool,  # noqa: FBT001
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    outputs = inputs.new_empty(inputs.shape[0], inputs.shape[1], hidden.shape[1])
    saved = inputs.new_empty(_saved_shape(inputs, hidden, tied, refined, save))
    return outputs, torch.empty_like(hidden), torch.empty_like(cell), saved


@torch.library.custom_op("urzoo::lstm_scan_backward", mutates_args=(), device_types="cpu")
def lstm_scan_backward(
    outputs_grad: Tensor | None,
    final_hidden_grad: Tensor | None,
    final_cell_grad: Tensor | None,
    inputs: Tensor,
    input_weight: Tensor,
    recurrent_weight: Tensor,
    hidden: Tensor,
    cell: Tensor,
    mask: Tensor | None,
    outputs: Tensor,
    saved: Tensor,
    tied: bool,  # noqa: FBT001
    refined: bool,  # noqa: FBT001
    reverse: bool,  # noqa: FBT001
    wants_inputs: bool,  # noqa: FBT001
) -> Gradients:
    """Gradients of inputs (empty unless wanted), input weight, recurrent weight, bias, hidden and cell."""
    batch, time, input_size = inputs.shape
    inputs_grad = empty(*inputs.shape) if wants_inputs else torch.empty(0)
    input_weight_grad = empty(*input_weight.shape)
    recurrent_weight_grad = empty(*recurrent_weight.shape)
    bias_grad = torch.empty(input_weight.shape[0])
    hidden_grad, cell_grad = torch.empty_like(hidden), torch.empty_like(cell)
    grads = [_contiguous(grad) for grad in (outputs_grad, final_hidden_grad, final_cell_grad)]
    tensors = [inputs, input_weight, recurrent_weight, hidden, cell, mask]
    inputs, input_weight, recurrent_weight, hidden, cell, mask = map(_contiguous, tensors)  # type: ignore[assignment]
    current().run(
        "backward",
        batch=batch,
        time=time,
        input_size=input_size,
        hidden_size=hidden.shape[1],
        tied=tied,
        refined=refined,
        reverse=reverse,
        threads=torch.get_num_threads(),
        inputs=inputs,
        input_weight=input_weight,
        recurrent_weight=recurrent_weight,
        hidden=hidden,
        cell=cell,
        mask=mask,
        outputs=outputs,
        saved=saved,
        outputs_grad=grads[0],
        final_hidden_grad=grads[1],
        final_cell_grad=grads[2],
        inputs_grad=inputs_grad if wants_inputs else None,
        input_weight_grad=input_weight_grad,
        recurrent_weight_grad=recurrent_weight_grad,
        bias_grad=bias_grad,
        hidden_grad=hidden_grad,
        cell_grad=cell_grad,
    )
    return inputs_grad, input_weight_grad, recurrent_weight_grad, bias_grad, hidden_grad, cell_grad


@lstm_scan_backward.register_fake
def _(
    outputs_grad: Tensor | None,  # noqa: ARG001
    final_hidden_grad: Tensor | None,  # noqa: ARG001
    final_cell_grad: Tensor | None,  # noqa: ARG001
    inputs: Tensor,
    input_weight: Tensor,
    recurrent_weight: Tensor,
    hidden: Tensor,
    cell: Tensor,
    mask: Tensor | None,  # noqa: ARG001
    outputs: Tensor,  # noqa: ARG001
    saved: Tensor,  # noqa: ARG001
    tied: bool,  # noqa: FBT001, ARG001
    refined: bool,  # noqa: FBT001, ARG001
    reverse: bool,  # noqa: FBT001, ARG001
    wants_inputs: bool,  # noqa: FBT001
) -> Gradients:
    inputs_grad = inputs.new_empty(inputs.shape if wants_inputs else (0,))
    bias_grad = inputs.new_empty(input_weight.shape[0])
    weight_grads = inputs.new_empty(input_weight.shape), inputs.new_empty(recurrent_weight.shape)
    return inputs_grad, *weight_grads, bias_grad, torch.empty_like(hidden), torch.empty_like(cell)


def _contiguous(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.contiguous()


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, tied, refined, reverse, _ = inputs
    outputs, _, _, saved = output
    ctx.save_for_backward(*tensors, outputs, saved)
    ctx.options = (tied, refined, reverse)
    # What is saved is an output of the operator: its gradient, never asked for, must not be made of zeros.
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    inputs, input_weight, recurrent_weight, bias, hidden, cell, mask, outputs, saved = ctx.saved_tensors
    inputs_grad, *others, bias_grad, hidden_grad, cell_grad = lstm_scan_backward(
        *grads[:3],
        inputs,
        input_weight,
        recurrent_weight,
        hidden,
        cell,
        mask,
        outputs,
        saved,
        *ctx.options,
        ctx.needs_input_grad[0],
    )
    return (
        inputs_grad if ctx.needs_input_grad[0] else None,
        *others,
        None if bias is None else bias_grad,
        hidden_grad,
        cell_grad,
        *(None,) * 5,
    )


lstm_scan.register_autograd(_backward, setup_context=_setup_context)
