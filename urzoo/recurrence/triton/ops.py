"""The recurrence on a GPU as custom operators of torch, so that autograd and torch.compile know it.

`urzoo::gpu_scan` runs the whole sequence, `urzoo::gpu_scan_backward` differentiates it. Both take the bias with
the gate bias already in it. The large products, input projection and weight gradients, happen here, outside
the loops. Sequences are batch-first at this border and time-major behind it.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from urzoo.recurrence.derivatives import ScanOptions, differentiable_gradients, refuse
from urzoo.recurrence.kind import Kind
from urzoo.recurrence.triton import loops
from urzoo.recurrence.triton.graphs import Recorder
from urzoo.recurrence.triton.loops import Scan, multiply

_FORWARD = Recorder(loops.forward, backward=False)
_BACKWARD = Recorder(loops.backward, backward=True)


def _scan(
    inputs: Tensor,
    hidden: Tensor,
    mask: Tensor | None,
    kind: Kind,
    *,
    save: bool,
) -> Scan:
    batch, time, _ = inputs.shape
    return Scan(batch, time, hidden.shape[1], kind, mask is not None, save, hidden.device)


def _on(device: torch.device) -> AbstractContextManager[object]:
    """Launches go to the current device, which need not be that of the tensors."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def _time_major(inputs: Tensor, mask: Tensor | None, dtype: torch.dtype) -> Tensor:
    """The inputs as `(time * batch, input_size)` in `dtype`, zero where masked, whatever stood there."""
    if mask is not None:
        inputs = torch.where(mask[:, :, None], inputs, 0.0)
    return inputs.transpose(0, 1).to(dtype).contiguous().flatten(0, 1)


@torch.library.custom_op("urzoo::gpu_scan", mutates_args=())
def gpu_scan(
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
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Outputs `(time, batch, hidden)`, final hidden state, final cell (empty for the GRU); gates, carries, recalled.

    The last three are kept for the backward pass if `save` is "activations". Empty, they are computed again in it if
    needed. `named` says that the caller chose this back end by its name, so that second derivatives are refused.
    """
    scan = _scan(inputs, hidden, mask, Kind.read(kind, dtype), save=save == "activations")
    with _on(scan.device), _FORWARD.workspace(scan) as workspace:
        projection = workspace.tensor("gates").flatten(0, 1)
        multiply(_time_major(inputs, mask, dtype), input_weight.to(dtype).t(), projection)
        if bias is not None:
            projection += bias
        workspace.put("recurrent_weight", recurrent_weight)
        workspace.put("hidden", hidden)
        workspace.tensor("carries")[0].copy_(hidden if cell is None else cell)
        if mask is not None:
            workspace.put("mask", mask.t())
        _FORWARD.run(workspace)
        final = workspace.tensor("carries")[scan.time if scan.save else scan.time % 2].clone()
        outputs = workspace.take("outputs")
        if not scan.save:
            unsaved = torch.empty(0, dtype=torch.float32, device=scan.device)
            saved = (unsaved, unsaved.clone(), unsaved.clone())
        else:
            saved = (workspace.take("gates"), workspace.take("carries"), workspace.take("recalled"))
    if scan.gru:
        return outputs, final, torch.empty(0, dtype=torch.float32, device=scan.device), *saved
    return outputs, outputs[scan.order[-1]].clone(), final, *saved


@gpu_scan.register_fake
def _(
    inputs: Tensor,
    input_weight: Tensor,  # noqa: ARG001
    recurrent_weight: Tensor,  # noqa: ARG001
    bias: Tensor | None,  # noqa: ARG001
    hidden: Tensor,
    cell: Tensor | None,  # noqa: ARG001
    mask: Tensor | None,
    kind: str,
    dtype: torch.dtype,
    save: str,
    named: bool,  # noqa: ARG001, FBT001
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    scan = _scan(inputs, hidden, mask, Kind.read(kind, dtype), save=save == "activations")
    shapes = scan.shapes(backward=False)
    outputs, gates, carries, recalled = (
        hidden.new_empty(shape, dtype=exact)
        for shape, exact in (shapes[name] for name in ("outputs", "gates", "carries", "recalled"))
    )
    if not scan.save:
        gates, carries, recalled = (hidden.new_empty(0, dtype=torch.float32) for _ in range(3))
    state = hidden.new_empty(hidden.shape, dtype=torch.float32)
    if scan.gru:
        return outputs, state, hidden.new_empty(0, dtype=torch.float32), gates, carries, recalled
    return outputs, hidden.new_empty(hidden.shape, dtype=dtype), state, gates, carries, recalled


@torch.library.custom_op("urzoo::gpu_scan_backward", mutates_args=())
def gpu_scan_backward(
    outputs_grad: Tensor | None,
    hidden_grad: Tensor | None,
    cell_grad: Tensor | None,
    inputs: Tensor,
    input_weight: Tensor,
    recurrent_weight: Tensor,
    hidden: Tensor,
    mask: Tensor | None,
    outputs: Tensor,
    gates: Tensor,
    carries: Tensor,
    recalled: Tensor,
    kind: str,
    wants_inputs: bool,  # noqa: FBT001
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of inputs (empty unless wanted), input and recurrent weight, bias, hidden, cell (empty for the GRU)."""
    dtype = outputs.dtype
    scan = _scan(inputs, hidden, mask, Kind.read(kind, dtype), save=True)
    with _on(scan.device), _BACKWARD.workspace(scan) as workspace:
        workspace.put("recurrent_weight", recurrent_weight)
        workspace.put("gates", gates)
        workspace.put("carries", carries)
        if mask is not None:
            workspace.put("mask", mask.t())
        _start(workspace.tensor("outputs_grad"), outputs_grad)
        # The GRU's hidden state is carried on past the products, the LSTM's is not.
        _start(workspace.tensor("hidden_grad"), None if scan.gru else hidden_grad)
        _start(workspace.tensor("passed_grad"), hidden_grad if scan.gru else None)
        if not scan.gru:
            _start(workspace.tensor("cell_grad"), cell_grad)
        workspace.tensor("sums").zero_()
        _BACKWARD.run(workspace)
        gradient = workspace.tensor("preactivations_grad")
        hidden_out = workspace.tensor("hidden_grad") + workspace.tensor("passed_grad")
        cell_out = workspace.take("cell_grad")

        flat = gradient.flatten(0, 1)
        inputs_grad = torch.empty(0, dtype=torch.float32, device=scan.device)
        if wants_inputs:
            by_time = flat.new_empty(flat.shape[0], inputs.shape[2], dtype=torch.float32)
            multiply(flat, input_weight.to(dtype), by_time)
            inputs_grad = by_time.view(*gradient.shape[:2], -1).transpose(0, 1).to(inputs.dtype).contiguous()
        input_weight_grad = torch.empty_like(input_weight, dtype=torch.float32)
        multiply(flat.t(), _time_major(inputs, mask, dtype), input_weight_grad)
        bias_grad = (workspace.tensor("sums") if scan.rounds else flat).sum(0)
        recurrent_grad = _recurrent_weight_grad(scan, gradient, hidden.to(dtype), outputs, recalled)
    return (
        inputs_grad,
        input_weight_grad.to(input_weight.dtype),
        recurrent_grad.to(recurrent_weight.dtype),
        bias_grad,
        hidden_out.to(hidden.dtype),
        cell_out,
    )


def _start(tensor: Tensor, gradient: Tensor | None) -> None:
    if gradient is None:
        tensor.zero_()
    else:
        tensor.copy_(gradient)


def _recurrent_weight_grad(scan: Scan, gradient: Tensor, hidden: Tensor, outputs: Tensor, recalled: Tensor) -> Tensor:
    """The sum over all steps of the pre-activations' gradients times what the weight was multiplied with."""
    rows = (scan.blocks - scan.gru) * scan.hidden_size
    result = gradient.new_empty(gradient.shape[2], scan.hidden_size, dtype=torch.float32)
    first = scan.order[0]
    multiply(gradient[first, :, :rows].t(), hidden, result[:rows])
    if scan.time > 1:
        later, earlier = (slice(-1), slice(1, None)) if scan.kind.reverse else (slice(1, None), slice(-1))
        sums = torch.empty_like(result[:rows])
        multiply(gradient[later, :, :rows].flatten(0, 1).t(), outputs[earlier].flatten(0, 1), sums)
        result[:rows] += sums
    if scan.gru:
        multiply(gradient[:, :, rows:].flatten(0, 1).t(), recalled.flatten(0, 1), result[rows:])
    return result


@gpu_scan_backward.register_fake
def _(
    outputs_grad: Tensor | None,  # noqa: ARG001
    hidden_grad: Tensor | None,  # noqa: ARG001
    cell_grad: Tensor | None,  # noqa: ARG001
    inputs: Tensor,
    input_weight: Tensor,
    recurrent_weight: Tensor,
    hidden: Tensor,
    mask: Tensor | None,  # noqa: ARG001
    outputs: Tensor,
    gates: Tensor,  # noqa: ARG001
    carries: Tensor,  # noqa: ARG001
    recalled: Tensor,  # noqa: ARG001
    kind: str,
    wants_inputs: bool,  # noqa: FBT001
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    return (
        inputs.new_empty(inputs.shape) if wants_inputs else inputs.new_empty(0, dtype=torch.float32),
        torch.empty_like(input_weight),
        torch.empty_like(recurrent_weight),
        input_weight.new_empty(input_weight.shape[0], dtype=torch.float32),
        torch.empty_like(hidden),
        hidden.new_empty(0 if Kind.read(kind, outputs.dtype).gru else hidden.shape, dtype=torch.float32),
    )


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    tensors, (kind, dtype, save, named) = inputs[:7], inputs[7:]
    _input, input_weight, recurrent_weight, bias, hidden, cell, mask = tensors
    outputs, _, _, *saved = output
    # Without saved activations the backward pass runs the loop once more, from the bias and the initial cell too.
    ctx.save_for_backward(_input, input_weight, recurrent_weight, hidden, mask, outputs, *saved, bias, cell)
    ctx.kind, ctx.dtype, ctx.save, ctx.named = kind, dtype, save, named
    ctx.bias_dtype = None if bias is None else bias.dtype
    ctx.cell_dtype = None if cell is None else cell.dtype
    # What is saved is an output of the operator: its gradient, never asked for, must not be made of zeros.
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    *tensors, outputs, gates, carries, recalled, bias, cell = ctx.saved_tensors
    inputs, input_weight, recurrent_weight, hidden, mask = tensors
    if torch.is_grad_enabled():
        # The gradients are to be differentiated again.
        if ctx.named:
            raise refuse("triton", "second derivatives")
        return *_by_the_reference(ctx, grads, (inputs, input_weight, recurrent_weight, bias, hidden, cell), mask), *[
            None
        ] * 5
    if ctx.save != "activations":
        arguments = (inputs, input_weight, recurrent_weight, bias, hidden, cell, mask, ctx.kind, ctx.dtype)
        _, _, _, gates, carries, recalled = gpu_scan(*arguments, save="activations", named=ctx.named)
    inputs_grad, input_weight_grad, recurrent_grad, bias_grad, hidden_grad, cell_grad = gpu_scan_backward(
        *grads[:3], *tensors, outputs, gates, carries, recalled, ctx.kind, ctx.needs_input_grad[0]
    )
    return (
        inputs_grad if ctx.needs_input_grad[0] else None,
        input_weight_grad,
        recurrent_grad,
        None if ctx.bias_dtype is None else bias_grad.to(ctx.bias_dtype),
        hidden_grad,
        None if ctx.cell_dtype is None else cell_grad.to(ctx.cell_dtype),
        *[None] * 5,
    )


def _by_the_reference(
    ctx: Any, grads: tuple[Tensor | None, ...], arguments: tuple[Tensor | None, ...], mask: Tensor | None
) -> Iterator[Tensor | None]:
    kind = Kind.read(ctx.kind, ctx.dtype)
    upstream = (None if grads[0] is None else grads[0].transpose(0, 1), *grads[1:3])
    with torch.enable_grad():
        # Aliases, because one may depend on another: that way is differentiated outside.
        arguments = tuple(None if tensor is None else tensor.view_as(tensor) for tensor in arguments)
    wanted = [tensor for tensor in arguments if tensor is not None and tensor.requires_grad]
    options = ScanOptions(gating=kind.gating, mask=mask, reverse=kind.reverse, dtype=ctx.dtype)
    found = iter(differentiable_gradients(upstream, arguments, wanted, **options))
    return (None if tensor is None or not tensor.requires_grad else next(found) for tensor in arguments)


def release() -> None:
    """Forget the recorded graphs, whose tensors stay on the device otherwise."""
    _FORWARD.release()
    _BACKWARD.release()


gpu_scan.register_autograd(_backward, setup_context=_setup_context)
