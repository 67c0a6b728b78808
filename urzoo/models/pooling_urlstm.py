"""What a classifier takes of its layers' outputs: the last, the mean and the maximum over the real steps."""

# mypy: disable-error-code="no-untyped-call, untyped-decorator, misc"
# (torch.autograd is annotated in part only)

from typing import Any

import torch
from torch import Tensor

from urzoo.models.configuration_urlstm import URLSTMConfig


def pool(states: Tensor, mask: Tensor | None, config: URLSTMConfig) -> Tensor:
    """Outputs `(batch, time, size)` reduced over the real steps, `(batch, size * len(pooling))`."""
    if (
        mask is None
        and "max" in config.pooling
        and not _is_traced()
        and torch.is_grad_enabled()
        and states.requires_grad
    ):
        pooled: Tensor = _WholeRows.apply(states, tuple(config.pooling), config.hidden_size)[0]
        return pooled
    return torch.cat([_part(name, states, mask, config.hidden_size) for name in config.pooling], dim=-1)


def _is_traced() -> bool:
    """Whether `torch.jit.trace` records: once for all, with gradients and without."""
    return torch._C._get_tracing_state() is not None


def _part(name: str, states: Tensor, mask: Tensor | None, hidden_size: int) -> Tensor:
    if name == "last":
        return _last(states, mask, hidden_size)
    return _mean(states, mask) if name == "mean" else _max(states, mask)


def _last(states: Tensor, mask: Tensor | None, hidden_size: int) -> Tensor:
    """The output at the end of each direction's way: the last real step, for the backward half the first."""
    forward, backward = states[..., :hidden_size], states[..., hidden_size:]
    if mask is None:
        return torch.cat([forward[:, -1], backward[:, 0]], dim=-1)
    rows = torch.arange(states.shape[0], device=states.device)
    # argmax gives the first of equal values: of the mask the first real step, of its mirror image the last.
    first = mask.int().argmax(dim=1)
    last = mask.shape[1] - 1 - mask.int().flip(1).argmax(dim=1)
    ends = torch.cat([forward[rows, last], backward[rows, first]], dim=-1)
    return ends.masked_fill(~mask.any(dim=1, keepdim=True), 0.0)


def _mean(states: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None and states.dtype == torch.bfloat16:
        # The product adds up in float32, as `mean` does, in a tenth of its time on a CPU.
        return (states.new_ones(1, states.shape[1]) @ states).squeeze(1) / states.shape[1]
    if mask is not None:
        states = states.masked_fill(~mask.unsqueeze(-1), 0.0)
    if torch.is_grad_enabled() or torch.compiler.is_compiling() or _is_traced():
        total = states.sum(dim=1, dtype=_sum_dtype(states))
    else:
        sums = _no_sums(states)
        for part in states.split(_SUMS, dim=1):
            sums = _with_steps(sums, part, 0)
        total = _total(sums)
    mean: Tensor = total / (states.shape[1] if mask is None else mask.sum(dim=1, keepdim=True).clamp(min=1))
    return mean.to(states.dtype)


_SUMS = 8
"""Step t of a row is added to sum t modulo so many, one step after another: the same bits however the row comes in."""


def _sum_dtype(states: Tensor) -> torch.dtype:
    """float32 for states of 16 bits: a sum in those stands still at some hundred times a state, or is infinite."""
    return torch.promote_types(states.dtype, torch.float32)


def _no_sums(states: Tensor) -> Tensor:
    return states.new_zeros(states.shape[0], _SUMS, states.shape[2], dtype=_sum_dtype(states))


def _with_steps(sums: Tensor, steps: Tensor, first: int) -> Tensor:
    """The sums `(batch, _SUMS, size)` with a step added to each of those from `first` on."""
    end = first + steps.shape[1]
    if end - first == _SUMS:
        return sums + steps
    return torch.cat([sums[:, :first], sums[:, first:end] + steps, sums[:, end:]], dim=1)


def _total(sums: Tensor) -> Tensor:
    while sums.shape[1] > 1:
        half = sums.shape[1] // 2
        sums = sums[:, :half] + sums[:, half:]
    return sums[:, 0]


def _max(states: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return states.amax(dim=1)
    inside = states.masked_fill(~mask.unsqueeze(-1), -torch.inf)
    # The first of equal values has the gradient, as in rows without padding; `amax` would share it out.
    largest = inside.max(dim=1).values if torch.is_grad_enabled() or _is_traced() else inside.amax(dim=1)
    return largest.masked_fill(~mask.any(dim=1, keepdim=True), 0.0)


class PooledSoFar:
    """`pool` of rows without padding that come in piece by piece, of layers in one direction; without gradients.

    In float32 it gives the bits of `pool` on the whole rows.
    """

    def __init__(self, config: URLSTMConfig) -> None:
        self._pooling, self._steps = config.pooling, 0
        self._last = self._largest = self._sums = torch.empty(0)

    def add(self, states: Tensor) -> None:
        """Outputs `(batch, time, size)` that follow those before."""
        largest = states.amax(dim=1)
        if self._steps == 0:
            self._largest, self._sums = largest, _no_sums(states)
        self._last, self._largest = states[:, -1], torch.maximum(self._largest, largest)
        if "mean" in self._pooling:
            first = self._steps % _SUMS
            for part in (states[:, : _SUMS - first], *states[:, _SUMS - first :].split(_SUMS, dim=1)):
                self._sums, first = _with_steps(self._sums, part, first), 0
        self._steps += states.shape[1]

    @property
    def value(self) -> Tensor:
        """Shape `(batch, size * len(pooling))`."""
        parts = {"last": self._last, "max": self._largest}
        if "mean" in self._pooling:
            parts["mean"] = (_total(self._sums) / self._steps).to(self._last.dtype)
        return torch.cat([parts[name] for name in self._pooling], dim=-1)


class _WholeRows(torch.autograd.Function):
    """`pool` of rows without padding, whose parts share one gradient of the outputs.

    Autograd would write one for each part and add them up, and for a maximum, which it shares out among equal values,
    go through the outputs again and again: in training that took half as long as the recurrence. Here the first of
    equal values has the whole gradient. The map is linear between two such places, and so are all of its derivatives.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(states: Tensor, pooling: tuple[str, ...], hidden_size: int) -> tuple[Tensor, Tensor]:
        largest, places = states.max(dim=1)
        parts = [largest if name == "max" else _part(name, states, None, hidden_size) for name in pooling]
        return torch.cat(parts, dim=-1), places

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, tuple[str, ...], int], output: tuple[Tensor, Tensor]) -> None:
        states, ctx.pooling, ctx.hidden_size = inputs
        ctx.shape = states.shape
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(output[1])
        ctx.save_for_forward(output[1])

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: None) -> tuple[Tensor, None]:
        (places,) = ctx.saved_tensors
        largest = tangent.gather(1, places.unsqueeze(1)).squeeze(1)
        parts = [largest if name == "max" else _part(name, tangent, None, ctx.hidden_size) for name in ctx.pooling]
        return torch.cat(parts, dim=-1), None

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, None, None]:
        (places,) = ctx.saved_tensors
        _, time, size = ctx.shape
        parts = dict(zip(ctx.pooling, grad.split(size, dim=-1), strict=True))
        if "mean" in parts:
            total = (parts["mean"] / time).unsqueeze(1).expand(ctx.shape).contiguous()
        else:
            total = grad.new_zeros(ctx.shape)
        total.scatter_add_(1, places.unsqueeze(1), parts["max"].unsqueeze(1))
        if "last" in parts:
            total[:, -1, : ctx.hidden_size] += parts["last"][:, : ctx.hidden_size]
            total[:, 0, ctx.hidden_size :] += parts["last"][:, ctx.hidden_size :]
        return total, None, None
