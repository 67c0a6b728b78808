"""The axes of the board's plots: their ends, and marks at round numbers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Axis:
    """An axis from `low` to `high` with its marks; `log` where distances stand for ratios."""

    label: str
    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    log: bool = False

    def position(self, value: float) -> float:
        """Where `value` lies between the ends of the axis, 0 to 1."""
        if self.log:
            return (math.log(value) - math.log(self.low)) / (math.log(self.high) - math.log(self.low))
        return (value - self.low) / (self.high - self.low)


def linear_axis(
    label: str, values: Sequence[float], bounds: tuple[float, float] = (-math.inf, math.inf), margin: float = 0.06
) -> Axis:
    """An axis over all `values`, with marks at round numbers and a margin of that part of their spread at both ends.

    No mark lies outside `bounds`, between which the values must be by their nature.
    """
    low, high = min(values), max(values)
    spread = high - low or abs(high) * 0.02 or 1.0
    low, high = low - margin * spread, high + margin * spread
    step = _nice_step((high - low) / 6)
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    first = math.ceil(max(low, bounds[0]) / step - 1e-9)
    last = math.floor(min(high, bounds[1]) / step + 1e-9)
    name = si if step >= 1000 else (lambda value: f"{value:.{digits}f}")
    return Axis(label, low, high, tuple((n * step, name(n * step)) for n in range(first, last + 1)))


def _nice_step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * (1 - 1e-9))


MOST_MARKS = 8


def log_axis(label: str, values: Sequence[float]) -> Axis:
    """A logarithmic axis over positive `values`, with marks at round numbers."""
    low, high = min(values) / 1.3, max(values) * 1.3
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    # 1-2-5 marks over less than two decades, decades over more.
    factors = (1, 2, 5) if high / low < 300 else (1,)
    marks = [factor * 10.0**power for power in range(first, last + 1) for factor in factors]
    inside = [mark for mark in marks if low <= mark <= high]
    # Values so close together that no such mark lies among them.
    inside = inside or [float(f"{min(values):.2g}")]
    inside = inside[:: -(-len(inside) // MOST_MARKS)]
    return Axis(label, low, high, tuple((float(mark), f"{mark:g}") for mark in inside), log=True)


def si(value: float) -> str:
    """A number in thousands, millions or billions, as the marks of an axis have it."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"
