"""The recurrence in plain PyTorch: the definition that every back end is tested against.

Written for reading, not for speed: one time step per Python iteration and no in-place updates, so that
autograd differentiates it as it stands. UR-LSTM, the default gating:

    f = sigmoid(forget + b)                    forget gate
    r = sigmoid(refine - b)                    refine gate
    e = r (1 - (1 - f)^2) + (1 - r) f^2        effective forget gate (the paper's g)
    c' = e c + (1 - e) tanh(candidate)         h' = sigmoid(output) tanh(c')

Precision in a 16-bit dtype (bfloat16 or float16, given or by autocast): the factors of every product, forward
and backward, are rounded to it; sums and everything else happen in float32, above all what is carried over
time: the LSTM's cell and the GRU's hidden state. Gradients reach weights kept in float32 in float32.

Source: Gu et al. 2020, arXiv:1910.09890; gates.py has the other gatings.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from urzoo.recurrence.gates import Gating, State, gru_gates, lstm_update

name = "reference"


def unavailable() -> str:
    """Why this back end cannot run on this machine: it always can."""
    return ""


def unsupported(gating: Gating, dtype: torch.dtype, device: torch.device) -> str:  # noqa: ARG001
    """Why this back end cannot run such a recurrence: it takes all."""
    return ""


def scan(
    inputs: Tensor,
    input_weight: Tensor,
    recurrent_weight: Tensor,
    bias: Tensor | None,
    gate_bias: Tensor | None,
    state: State,
    *,
    gating: Gating,
    mask: Tensor | None,
    reverse: bool,
    save: str,  # noqa: ARG001
    dtype: torch.dtype,
    named: bool = False,  # noqa: ARG001
) -> tuple[Tensor, State]:
    """Run the recurrence over a sequence; the arguments are those of `urzoo.recurrence.scan`, checked.

    Args:
        dtype: That of the products; `urzoo.recurrence.scan.Backend` says what follows from it.
    """
    if mask is not None:
        # A NaN in the padding must not reach the gradients, where it would survive the product with zero.
        inputs = torch.where(mask[:, :, None], inputs, 0.0)
    with without_autocast(inputs.device):
        # The projection of all steps at once: one large product in place of many small ones.
        projected = _projected(inputs, input_weight, bias, dtype)
        weight = _factor(recurrent_weight, dtype)
        gate_bias = _carried(gate_bias, dtype)
        state = tuple(part.to(carry_dtype(dtype)) for part in state)

        steps = list(enumerate(projected.unbind(1)))
        keep = None if mask is None else mask[:, :, None].unbind(1)
        outputs = [state[0]] * len(steps)
        for time, projection in reversed(steps) if reverse else steps:
            updated = _update(gating, projection, weight, gate_bias, state, dtype)
            if keep is not None:
                updated = tuple(torch.where(keep[time], new, old) for new, old in zip(updated, state, strict=True))
            state = updated
            outputs[time] = state[0]
        return torch.stack(outputs, 1).to(dtype), _leave(gating, state, dtype)


def step(
    inputs: Tensor,
    input_weight: Tensor,
    recurrent_weight: Tensor,
    bias: Tensor | None,
    gate_bias: Tensor | None,
    state: State,
    *,
    gating: Gating,
    dtype: torch.dtype,
    named: bool = False,  # noqa: ARG001
) -> State:
    """Run one step; the arguments are those of `urzoo.recurrence.step`, checked."""
    with without_autocast(inputs.device):
        projection = _projected(inputs, input_weight, bias, dtype)
        state = tuple(part.to(carry_dtype(dtype)) for part in state)
        weight = _factor(recurrent_weight, dtype)
        state = _update(gating, projection, weight, _carried(gate_bias, dtype), state, dtype)
        return _leave(gating, state, dtype)


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Products in the dtype of their factors; nothing on a device that knows no autocast, such as "meta"."""
    known = torch.amp.is_autocast_available(device.type)
    return torch.autocast(device.type, enabled=False) if known else nullcontext()


def carry_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of what is carried over time, and of the gate arithmetic."""
    return torch.float32 if dtype in (torch.bfloat16, torch.float16) else dtype


def _update(
    gating: Gating, projection: Tensor, weight: Tensor, gate_bias: Tensor | None, state: State, dtype: torch.dtype
) -> State:
    """One step from the projected inputs; all tensors in the carried dtype."""
    hidden = state[0]
    if gating.cell == "lstm":
        preactivations = projection + _product(_rounded(hidden, dtype), weight, dtype)
        hidden, cell = lstm_update(gating, preactivations, gate_bias, state[1])
        return _rounded(hidden, dtype), cell
    gate_rows = weight.shape[0] - hidden.shape[-1]
    preactivations = projection[:, :gate_rows] + _product(_rounded(hidden, dtype), weight[:gate_rows], dtype)
    reset, effective_update = gru_gates(gating, preactivations, gate_bias)
    recalled = _product(_rounded(reset * hidden, dtype), weight[gate_rows:], dtype)
    candidate = torch.tanh(projection[:, gate_rows:] + recalled)
    return ((1.0 - effective_update) * hidden + effective_update * candidate,)


def _leave(gating: Gating, state: State, dtype: torch.dtype) -> State:
    """The state as it is handed out: the LSTM's hidden state in `dtype`, what is carried as it is."""
    return (state[0].to(dtype), state[1]) if gating.cell == "lstm" else state


def _projected(inputs: Tensor, input_weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
    """The part of the pre-activations that does not depend on the state."""
    product = _product(_factor(inputs, dtype), _factor(input_weight, dtype), dtype)
    bias = _carried(bias, dtype)
    return product if bias is None else product + bias


def _carried(tensor: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return None if tensor is None else tensor.to(carry_dtype(dtype))


def _rounded(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Values of `dtype` in the carried dtype; the gradient is rounded on its way back as well."""
    return tensor.to(dtype).to(carry_dtype(dtype))


def _factor(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """An input or weight as the factor of a product: its values are those of `dtype`, its gradient is not rounded."""
    carried = tensor.to(carry_dtype(dtype))
    if tensor.dtype == dtype or carry_dtype(dtype) == dtype:
        return carried
    # The difference is exact, and so is the sum; autograd sees the identity.
    return carried + (_rounded(carried, dtype) - carried).detach()


def _product(left: Tensor, weight: Tensor, dtype: torch.dtype) -> Tensor:
    """`left @ weight.T` of factors that are rounded already, and a gradient that is rounded as a factor."""
    product = F.linear(left, weight)
    if carry_dtype(dtype) == dtype:
        return product
    rounded: Tensor = _RoundGradient.apply(product, dtype)  # type: ignore[no-untyped-call]
    return rounded


class _RoundGradient(torch.autograd.Function):
    """The identity, whose gradient takes the values of a dtype."""

    generate_vmap_rule = True

    @staticmethod
    def forward(tensor: Tensor, dtype: torch.dtype) -> Tensor:  # noqa: ARG004
        return tensor.view_as(tensor)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, torch.dtype], output: Tensor) -> None:  # noqa: ARG004
        ctx.dtype = inputs[1]

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, _: None) -> Tensor:  # noqa: ARG004
        return tangent.view_as(tangent)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient.to(ctx.dtype).to(gradient.dtype), None
