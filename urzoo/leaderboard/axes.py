"""The axes of the board's plots: their ends, and marks at round numbers."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Axis:
    """An axis from `low` to `high` with its marks; `log` where distances stand for ratios."""

    label: str
    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    log: bool = False

    def place(self, value: float) -> float:
        """Where `value` lies between the ends of the axis, 0 to 1."""
        if self.log:
            return (math.log(value) - math.log(self.low)) / (math.log(self.high) - math.log(self.low))
        return (value - self.low) / (self.high - self.low)


def linear_axis(label: str, values: Sequence[float], margin: float = 0.06) -> Axis:
    """An axis over all `values`, with a margin of that part of their spread at both ends and marks at round numbers."""
    low, high = min(values), max(values)
    spread = high - low or abs(high) * 0.02 or 1.0
    low, high = low - margin * spread, high + margin * spread
    step = _nice_step((high - low) / 6)
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    name = si if step >= 1000 else (lambda value: f"{value:.{digits}f}")
    return Axis(label, low, high, tuple((n * step, name(n * step)) for n in range(first, last + 1)))


def _nice_step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * (1 - 1e-9))


# Durations that people say, in seconds: from 1 second to 1,000 hours.
TIMES = (
    1,
    2,
    5,
    10,
    30,
    *(60 * n for n in (1, 2, 5, 10, 20, 30)),
    *(3600 * n for n in (1, 2, 5, 10, 20, 50, 100, 1000)),
)
MOST_MARKS = 6


def log_axis(
    label: str, values: Sequence[float], name: Callable[[float], str], marks: Sequence[float] | None = None
) -> Axis:
    """A logarithmic axis over positive `values`; `name` writes its marks, which are among `marks` if given."""
    low, high = min(values) / 1.8, max(values) * 1.8
    if marks is None:
        first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
        # 1-2-5 marks over less than two decades, decades over more.
        factors = (1, 2, 5) if high / low < 120 else (1,)
        marks = [factor * 10.0**power for power in range(first, last + 1) for factor in factors]
    inside = [mark for mark in marks if low <= mark <= high]
    inside = inside[:: -(-len(inside) // MOST_MARKS)] if inside else [min(values)]
    return Axis(label, low, high, tuple((float(mark), name(mark)) for mark in inside), log=True)


def si(value: float) -> str:
    """A number in thousands, millions or milliards, as the marks of an axis have it."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"
