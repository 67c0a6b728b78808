"""Timing several things against each other on a machine that others may be using.

Everything that is compared is timed in rounds, A B C A B C ..., so that a slow minute of the machine hits
all of them alike. Ratios are taken within a round and only then summarised: a median of ratios is steady
where a ratio of medians is not.
"""

import contextlib
import gc
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

Call = Callable[[], object]

# A sample shorter than this is repeated until it is not: below it the clock and the scheduler would be measured.
SAMPLE_SECONDS = 0.02
MINIMUM_ROUNDS = 3
MAXIMUM_ROUNDS = 50


@dataclass(frozen=True)
class Spread:
    """A median with the range it was taken from."""

    median: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    """The median of `values` with their least and greatest; `values` has at least one entry."""
    return Spread(statistics.median(values), min(values), max(values))


def median_ratio(numerators: Sequence[float], denominators: Sequence[float]) -> float:
    """The median over rounds of numerator over denominator, round by round."""
    return statistics.median(top / bottom for top, bottom in zip(numerators, denominators, strict=True))


def seconds_of(call: Call, *, calls: int, device: torch.device) -> float:
    """Mean wall time in seconds of one of `calls` calls in a row, the device's queue drained at both ends."""
    if device.type == "cuda":
        start = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        end = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        torch.cuda.synchronize(device)
        start.record()
        for _ in range(calls):
            call()
        end.record()
        torch.cuda.synchronize(device)
        return float(start.elapsed_time(end)) / 1000 / calls
    begin = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - begin) / calls


def interleave(
    contenders: Mapping[str, Call],
    *,
    budget_seconds: float,
    device: torch.device,
    minimum_rounds: int = MINIMUM_ROUNDS,
    maximum_rounds: int = MAXIMUM_ROUNDS,
) -> dict[str, list[float]]:
    """Time every contender once per round; return the seconds per call, one entry per round.

    Each contender is called twice beforehand: the first call packs, compiles and touches memory, the second
    tells how often to repeat it in a sample. As many rounds follow as the budget holds, but never fewer than
    `minimum_rounds`, so that a small budget may be exceeded.
    """
    calls: dict[str, int] = {}
    round_seconds = 0.0
    begin = time.perf_counter()
    for name, call in contenders.items():
        call()
        once = max(seconds_of(call, calls=1, device=device), 1e-7)
        calls[name] = max(1, math.ceil(SAMPLE_SECONDS / once))
        round_seconds += once * calls[name]
    left_seconds = budget_seconds - (time.perf_counter() - begin)
    rounds = max(minimum_rounds, min(maximum_rounds, int(left_seconds / round_seconds)))
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    with _no_garbage_collection():
        for _ in range(rounds):
            for name, call in contenders.items():
                seconds[name].append(seconds_of(call, calls=calls[name], device=device))
    return seconds


@contextlib.contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Keep Python's collector from running inside one contender's sample on behalf of another's garbage."""
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
