"""Repeating evaluations: of rows already on the board, and of a result that someone sends in.

A row is believed because its evaluation can be repeated. `verify` repeats some picked at random;
`check_submission` is what a maintainer runs on a file from outside before it goes into the results.
"""

import math
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from urzoo.data import lacking, load_data_set, load_split
from urzoo.errors import ResultError, UrzooError, UsageError
from urzoo.evaluation.intervals import wilson
from urzoo.evaluation.repetition import Repetition, repetitions, settings_of
from urzoo.evaluation.runner import Evaluation, Subject, model_record
from urzoo.evaluation.schema import Result, plain_name, read_result, result_name
from urzoo.evaluation.task import Task
from urzoo.leaderboard.board import CurrentTask, Evidence, refuse_unfit, standing
from urzoo.leaderboard.collect import collect, current_tasks
from urzoo.leaderboard.text import refuse_unprintable
from urzoo.zoo import checkpoints, info, path, study_checkpoints

# A sample's accuracy may lie this many standard errors from the accuracy of the whole split.
STANDARD_ERRORS = 4.0


@dataclass(frozen=True)
class Verification:
    """What was compared, and the rows that cannot be repeated here, with the reason for each."""

    compared: tuple[Repetition, ...]
    unrepeatable: tuple[str, ...]


def verify(
    results: Path,
    n: int,
    *,
    seed: int = 0,
    data_root: Path | str | None = None,
    folders: Mapping[str, Path] | None = None,
    progress: bool = True,
) -> Verification:
    """Evaluate `n` rows of the board again, picked at random among those that can be repeated here.

    Args:
        results: The folder of result files.
        n: How many rows, at least 1; all that can be repeated if there are fewer.
        seed: Of the choice.
        data_root: As for `urzoo.data.load_split`.
        folders: Checkpoint folders by model name, for models that are not shipped.
        progress: Show a progress bar on stderr if that is a terminal.

    Raises:
        UsageError: `n` is not positive.
        ResultError: A row differs by more than its tolerance, or is of other weights; the message lists all such.
        UrzooError: No row can be repeated here.
    """
    if n < 1:
        raise UsageError(f"verify is {n}, expected at least 1 row; try --verify 3.")
    tasks = current_tasks()
    possible: list[tuple[Result, str | Path]] = []
    unrepeatable = []
    for evidence in collect(results).evidence:
        refuse_unfit(evidence, tasks)
        checkpoint, obstacle = _checkpoint(evidence, tasks, folders or {}, data_root)
        if checkpoint is None:
            unrepeatable.append(f"{evidence.file}: {obstacle}")
        else:
            possible.append((evidence.result, checkpoint))
    if not possible:
        reasons = f" {unrepeatable[0]}" if unrepeatable else ""
        raise UrzooError(f"no result under {results} can be repeated here.{reasons}")
    # The same seed picks the same rows wherever the same rows can be repeated.
    chosen = random.Random(seed).sample(possible, min(n, len(possible)))
    compared: list[Repetition] = []
    complaints: list[str] = []
    for result, checkpoint in chosen:
        changed = _weights_complaint(result, checkpoint)
        if changed:
            complaints.append(changed)
            continue
        compared += _repeat(result, checkpoint, tasks[result.task.name].task, data_root, progress=progress)
    complaints += [_complaint(comparison) for comparison in compared if not comparison.agrees]
    if complaints:
        raise ResultError("; ".join(complaints) + ".")
    return Verification(tuple(compared), tuple(unrepeatable))


def check_submission(
    file: Path,
    checkpoint: Path | str,
    *,
    samples: int | None = None,
    seed: int = 0,
    data_root: Path | str | None = None,
    progress: bool = True,
) -> tuple[Repetition, ...]:
    """Check a result that was sent in: by schema, by digests, by its own arithmetic and by repeating it.

    Args:
        file: The result file.
        checkpoint: The checkpoint it is about: a shipped name or a folder.
        samples: Repeat only so many rows, drawn at random: this tells a gross difference of an accuracy and nothing
            else, so that tasks of other metrics are repeated whole. All rows when omitted.
        seed: Of the draw.
        data_root: As for `urzoo.data.load_split`.
        progress: Show a progress bar on stderr if that is a terminal.

    Returns:
        What was compared; all of it agrees.

    Raises:
        ResultError: The file would neither be ranked nor shown as another library's baseline, contradicts itself, is of
            other weights, says of the model what is not so, or differs from what is measured here by more than the
            tolerance.
        UrzooError: The checkpoint or the data cannot be had.
    """
    if samples is not None and samples < 1:
        raise UsageError(f"samples is {samples}; expected at least 1 row.")
    result = read_result(file)
    refuse_unprintable(file, result.model_dump(mode="json"))
    tasks = current_tasks()
    refuse_unfit(Evidence(result, str(file), None), tasks)
    current = tasks[result.task.name]
    if result.partial:
        raise ResultError(f"{file}: key partial is true; a result of {result.samples} rows cannot be on the board.")
    status, reason = standing(result, current)
    # Another library's model has no training record: it may be shown beside the ranked rows, as a baseline.
    if status == "outdated" or (status == "unranked" and result.model.training is not None):
        raise ResultError(f"{file}: would not be ranked: {reason}.")
    is_classification = current.task.problem.endswith("classification")
    if is_classification:
        _refuse_impossible(file, result)
    changed = _weights_complaint(result, checkpoint)
    if changed:
        raise ResultError(f"{file}: {changed}.")
    _refuse_other_record(file, result, checkpoint)
    # An accuracy over rows that stand for themselves can be told from some of them, no other figure can.
    sampled = samples if is_classification else None
    compared = _repeat(result, checkpoint, current.task, data_root, samples=sampled, seed=seed, progress=progress)
    complaints = [_complaint(comparison) for comparison in compared if not comparison.agrees]
    if complaints:
        raise ResultError(f"{file}: {'; '.join(complaints)}.")
    return tuple(compared)


def _checkpoint(
    evidence: Evidence, tasks: Mapping[str, CurrentTask], folders: Mapping[str, Path], data_root: Path | str | None
) -> tuple[str | Path | None, str]:
    """The row's checkpoint; or None, and why the row cannot be repeated here."""
    result = evidence.result
    status, reason = standing(result, tasks[result.task.name])
    if status == "outdated":
        return None, f"outdated: {reason}"
    if result.model.name in folders:
        checkpoint: str | Path = folders[result.model.name]
    elif result.model.name in (*checkpoints(), *study_checkpoints()):
        checkpoint = result.model.name
    else:
        return None, f"the checkpoint {result.model.name} is not here; name its folder"
    missing = lacking(result.data.name, result.data.split, data_root=data_root)
    return None if missing else checkpoint, missing


def _weights_complaint(result: Result, checkpoint: str | Path) -> str | None:
    present = info(path(checkpoint)).checkpoint_sha256
    if present == result.model.checkpoint_sha256:
        return None
    return (
        f"{result.model.name} on {result.task.name} was measured with checkpoint "
        f"{result.model.checkpoint_sha256[:12]}, but {checkpoint} is {present[:12]}"
    )


def _repeat(
    result: Result,
    checkpoint: str | Path,
    task: Task,
    data_root: Path | str | None,
    *,
    samples: int | None = None,
    seed: int = 0,
    progress: bool,
) -> list[Repetition]:
    """Measure a result again, on all rows or on so many, of which only the accuracy tells something."""
    split = load_split(task.data.name, task.data.split, data_root=data_root)
    sampled = samples is not None and samples < result.samples
    if samples is not None and sampled:
        # At random: the rows of some data sets are sorted by their class.
        split = split.select(np.array(sorted(random.Random(seed).sample(range(split.rows), samples)), dtype=np.int64))
    again = Evaluation(Subject.of(checkpoint), task, split, settings_of(result)).run(progress=progress).result
    compared = repetitions(result, again, task)
    if not sampled:
        return [*compared, *_ends(result, again, task)]
    accuracy = next(one for one in compared if one.metric.name == "accuracy")
    wider = _sampling_tolerance(accuracy.stored, again.samples, result.samples)
    return [replace(accuracy, tolerance=accuracy.tolerance + wider)]


def _ends(result: Result, again: Result, task: Task) -> Iterator[Repetition]:
    """The ends of the intervals; no number where there is no interval."""
    for spec in task.metrics:
        intervals = [one.intervals.get(spec.name) for one in (result, again)]
        for end in ("low", "high") if any(intervals) else ():
            stored, measured = (getattr(interval, end, math.nan) for interval in intervals)
            metric = spec.model_copy(update={"name": f"{spec.name} interval's {end}"})
            # An end moves faster than its metric, where that is no share.
            yield Repetition(result.model.name, task.name, metric, stored, measured, 2 * spec.tolerance)


def _sampling_tolerance(accuracy: float, samples: int, rows: int) -> float:
    """How far a sample's accuracy may lie from that of all rows; the sample is drawn without replacement."""
    variance = accuracy * (1 - accuracy) / samples * (rows - samples) / max(rows - 1, 1)
    return STANDARD_ERRORS * math.sqrt(variance) + 1 / samples


def _refuse_impossible(file: Path, result: Result) -> None:
    """Refuse an accuracy that no number of right answers gives, another interval than its own, and missing rows."""
    rows = load_data_set(result.data.name).splits[result.data.split].rows
    if result.data.rows != rows:
        raise ResultError(f"{file}: key data.rows is {result.data.rows}; expected {rows}.")
    accuracy = result.metrics["accuracy"]
    right = round(accuracy * rows)
    if abs(right - accuracy * rows) > 1e-4:
        raise ResultError(
            f"{file}: key metrics.accuracy is {accuracy}; expected a number of right answers out of {rows}."
        )
    expected, interval = wilson(right, rows), result.intervals.get("accuracy")
    if interval is None or max(abs(interval.low - expected.low), abs(interval.high - expected.high)) > 1e-6:
        raise ResultError(
            f"{file}: key intervals.accuracy is {interval and f'{interval.low:g} to {interval.high:g}'}; expected "
            f"{expected.low:.6f} to {expected.high:.6f}, that of {accuracy} by Wilson's formula at 95 %."
        )


def _refuse_other_record(file: Path, result: Result, checkpoint: Path | str) -> None:
    """Refuse what a result says of its model, its size or its training, and the checkpoint does not."""
    present = info(path(checkpoint))
    # What is not shipped is called after its digest, so that it never takes another's place.
    name = result_name(present, None if present.source in ("shipped", "study") else plain_name(result.model.name))
    subject = Subject(present, name, result.model.revision)
    said, found = (_flat(record.model_dump(mode="json")) for record in (result.model, model_record(subject)))
    for key in said | found:
        if said.get(key) != found.get(key):
            raise ResultError(
                f"{file}: key model.{key} is {said.get(key)!r}; expected {found.get(key)!r}, as {checkpoint} has it."
            )


def _flat(record: dict[str, Any]) -> dict[str, Any]:
    training = record.pop("training") or {}
    return record | {f"training.{key}": value for key, value in training.items()}


def _complaint(one: Repetition) -> str:
    return (
        f"{one.model} on {one.task}: {one.metric.name} is {one.stored:.6g} in the result and {one.measured:.6g} here, "
        f"expected at most {one.tolerance:.2g} apart"
    )
