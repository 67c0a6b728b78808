"""Learning curves on the copy and adding problems, from the tables that `scripts/curves` writes.

A table has one line for each gating, seed and step: `task,gate,seed,step,<score>`. The board shows the median over the
seeds at each step, and the range.
"""

import csv
import io
import math
from collections.abc import Mapping
from pathlib import Path
from statistics import median

from urzoo.errors import ResultError
from urzoo.evaluation.task import MetricSpec
from urzoo.leaderboard.board import CurrentTask
from urzoo.leaderboard.schema import ProblemCurve
from urzoo.recurrence.gates import GATINGS
from urzoo.schema import read_text

CURVES = "curves"
# Curves of one task on the page; a run scores some hundreds of times, the page needs no more than this many points.
_MOST_POINTS = 120


def problem_curves(folder: Path, tasks: Mapping[str, CurrentTask]) -> dict[str, tuple[ProblemCurve, ...]]:
    """The curves of each task for which the folder has a table.

    Args:
        folder: The folder `curves` of the board; there may be none.
        tasks: Today's tasks by name.

    Raises:
        ResultError: A table is malformed, or of a task that is not one; the message names the file and the line.
    """
    found = {}
    for path in sorted(folder.glob("*.csv")):
        if path.stem not in tasks:
            raise ResultError(f"{path} is named after no task; expected <task>.csv, as scripts/curves writes it.")
        found[path.stem] = _read(path, tasks[path.stem].task.metrics)
    return found


def _read(path: Path, metrics: list[MetricSpec]) -> tuple[ProblemCurve, ...]:
    reader = csv.reader(io.StringIO(read_text(path, error=ResultError)))
    head = next(reader, [])
    spec = next((metric for metric in metrics if head == ["task", "gate", "seed", "step", metric.name]), None)
    if spec is None:
        raise ResultError(
            f"{path} line 1: expected task,gate,seed,step and one of {', '.join(m.name for m in metrics)}."
        )
    scores: dict[str, dict[int, list[float]]] = {}
    seeds: dict[str, set[int]] = {}
    for line in reader:
        gate, seed, step, value = _parsed(line, path, reader.line_num)
        scores.setdefault(gate, {}).setdefault(step, []).append(value * spec.scale)
        seeds.setdefault(gate, set()).add(seed)
    return tuple(_curve(gate, len(seeds[gate]), by_step, spec) for gate, by_step in sorted(scores.items()))


def _parsed(line: list[str], path: Path, number: int) -> tuple[str, int, int, float]:
    try:
        task, gate, seed, step, text = line
        value = float(text)
        if task == path.stem and gate in GATINGS and int(seed) >= 0 and int(step) >= 0 and math.isfinite(value):
            return gate, int(seed), int(step), value
    except ValueError:
        pass
    raise ResultError(f"{path} line {number}: expected {path.stem}, a gating, a seed, a step and a finite number.")


def _curve(gate: str, seeds: int, by_step: dict[int, list[float]], spec: MetricSpec) -> ProblemCurve:
    steps = sorted(by_step)
    stride = -(-len(steps) // _MOST_POINTS)
    # The last point is where the run ended: it stays whatever the stride.
    kept = sorted({*steps[::stride], steps[-1]})
    return ProblemCurve(
        gate=gate,
        seeds=seeds,
        metric=spec.name,
        steps=tuple(kept),
        median=tuple(round(median(by_step[step]), 6) for step in kept),
        low=tuple(round(min(by_step[step]), 6) for step in kept),
        high=tuple(round(max(by_step[step]), 6) for step in kept),
    )
