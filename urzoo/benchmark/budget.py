"""What each contender's figure will take, estimated from short sequences, and which ones the time of a run holds.

A step that an emulated instruction makes slow is slow in a short sequence too: nothing has to be run at full length, or
be stopped on the way, to see that it will not end in time. The time is a straight line over the number of steps.
"""

import dataclasses
import functools
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TypeVar

import torch

from urzoo.benchmark.contenders import Contender, Layer, Workload
from urzoo.benchmark.figures import Contest, build, calls_of, has_figure
from urzoo.benchmark.measurements import Figure
from urzoo.benchmark.shapes import Shape
from urzoo.benchmark.timing import MINIMUM_ROUNDS, SAMPLE_SECONDS, seconds_of
from urzoo.recurrence import Gating

Key = TypeVar("Key")

# Lengths of the short sequences; the next one is tried until a call is long enough for the clock.
_STEPS = (1, 4, 16, 64)
_LONG_ENOUGH_SECONDS = 0.01
# Calls of a contender besides its rounds: one to compare results, two to warm up and to tell how often to repeat it.
_CALLS_BEFORE = 3


def affordable(costs: Mapping[Key, float], seconds: float) -> set[Key]:
    """The cheapest of `costs`, as many as `seconds` hold: a share that one does not need goes to the others."""
    kept = set()
    for key in sorted(costs, key=costs.__getitem__):
        seconds -= costs[key]
        if seconds < 0:
            break
        kept.add(key)
    return kept


def costs(
    shape: Shape, figures: Sequence[Figure], chosen: Sequence[Contender], gating: Gating, device: torch.device
) -> dict[tuple[Contest, str], float]:
    """Seconds that each figure of each contender on one shape takes at least, by contest and contender's name.

    Contenders that cannot take part here are left out.
    """
    measured: dict[tuple[Contest, str], list[tuple[int, float]]] = {}
    finished: set[tuple[Contest, str]] = set()
    for steps in sorted({min(steps, shape.time) for steps in _STEPS}):
        workload = Workload(dataclasses.replace(shape, time=steps), gating, device)
        for contender in chosen:
            contests = [Contest(shape, figure) for figure in figures if has_figure(contender, figure)]
            keys = [key for contest in contests if (key := (contest, contender.name)) not in finished]
            layer = build(contender, workload) if keys else ""
            if isinstance(layer, str):
                continue
            for key in keys:
                trained = measured.get((Contest(shape, "forward_backward"), contender.name), [])
                if key[0].figure == "memory" and trained and trained[-1][0] == steps:
                    elapsed = trained[-1][1]  # of the same call
                else:
                    elapsed = _seconds(key[0], layer, gating, device)
                points = measured.setdefault(key, [])
                points.append((steps, elapsed))
                # Two lengths at least, to tell what a step takes from what a call takes.
                if key[0].is_decoding or (elapsed >= _LONG_ENOUGH_SECONDS and len(points) > 1):
                    finished.add(key)
    process_seconds = _process_seconds() if any(contest.figure == "memory" for contest, _ in measured) else 0.0
    return {key: _cost(key[0], points, process_seconds) for key, points in measured.items()}


def _seconds(contest: Contest, layer: Layer, gating: Gating, device: torch.device) -> float:
    """What one call for a figure takes on the sequence of `layer`, once it is warm."""
    total = 0.0
    short = dataclasses.replace(contest, shape=layer.workload.shape)
    for call in calls_of(short, {layer.contender.name: layer}, gating, device).values():
        call()
        # The better of two: on a busy machine one alone may say anything.
        total += min(seconds_of(call, calls=1, device=device) for _ in range(2))
    return total


def _cost(contest: Contest, points: list[tuple[int, float]], process_seconds: float) -> float:
    """What a figure takes at least, at full length."""
    steps, seconds = points[-1]
    if not contest.is_decoding:
        before, less = points[0] if len(points) > 1 else (0, 0.0)
        seconds += max(0.0, seconds - less) / (steps - before) * (contest.shape.time - steps)
    if contest.figure == "memory":
        return process_seconds + seconds
    return _CALLS_BEFORE * seconds + MINIMUM_ROUNDS * max(SAMPLE_SECONDS, seconds)


@functools.cache
def _process_seconds() -> float:
    """What the start of a process that measures memory takes."""
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import urzoo.benchmark.memory"], check=True, capture_output=True)
    return time.perf_counter() - begin
