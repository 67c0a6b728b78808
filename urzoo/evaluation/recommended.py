"""Which of the shipped checkpoints to take for a task: the one that did best on validation rows.

The scores are those that training recorded in `training.json`, on rows held out of the training split. The test
split has no say: the best of many by its test score would look better than it is. Checkpoints of a study over
seeds (`-seed0-` in the name) are there to be compared with each other, and are never recommended.
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path

from urzoo.errors import CheckpointError
from urzoo.evaluation.task import MetricSpec, Task, load_task, neural_cache_size, tasks
from urzoo.zoo import checkpoints, path
from urzoo.zoo.lookup import UnknownCheckpointError, read_config, training_summary
from urzoo.zoo.schema import TrainingSummary

SEED = re.compile(r"-seed(\d+)(?=-|$)")
"""What stands in the name of a checkpoint that differs from others by the seed of its training alone."""


def recommended(task: str) -> str | None:
    """The name of the shipped checkpoint to take for a task; None where none was trained for it.

    Ties of the metric that ranks are broken by the task's other metrics, then by name.

    Raises:
        UsageError: There is no such task.
    """
    return _best(load_task(task), _summaries())


def recommended_checkpoints() -> dict[str, str]:
    """The recommended checkpoint of every task that has one, by the task's name.

    What was trained for no task that is evaluated, such as a language model for others to begin with, counts by what
    its recipe calls its task; there the lowest cross-entropy is the best.
    """
    summaries = _summaries()
    found = {task: name for task in tasks() if (name := _best(load_task(task), summaries)) is not None}
    others = [
        (training.validation.get("cross_entropy", math.inf), name, training.task)
        for name, training in summaries.items()
        if training.task not in tasks()
    ]
    # The last one written of a task is the best of it.
    return found | {task: name for _, name, task in sorted(others, reverse=True)}


def find(name_or_folder: str | Path) -> Path:
    """The folder of a checkpoint, as `urzoo.zoo.path` finds it; a name that is none is answered with those to take."""
    try:
        return path(name_or_folder)
    except UnknownCheckpointError as failure:
        raise UnknownCheckpointError(failure.name, sorted(set(recommended_checkpoints().values()))) from None


def has_context(task: Task, folder: Path) -> bool:
    """Whether the checkpoint in `folder` has the settings that the task's context asks for."""
    return task.context is None or neural_cache_size(read_config(folder)) > 0


def validation_score(scores: Mapping[str, float], task: Task) -> str | None:
    """What training recorded of a task's metric that ranks, as the task shows it; None where it recorded none."""
    metric = task.primary_metric
    score = _validation(scores, metric, task)
    unit = "" if metric.unit in metric.title.lower() else metric.unit  # as in "mean squared error"
    return None if score is None else f"{score * metric.scale:.{metric.digits}f} {unit}".rstrip()


def _summaries() -> dict[str, TrainingSummary]:
    """How the shipped checkpoints that are no part of a study were trained, by name."""
    found = {}
    for name in checkpoints():
        try:
            training = None if SEED.search(name) else training_summary(path(name))
        except CheckpointError:
            # Whoever loads a damaged checkpoint gets the error itself.
            continue
        if training is not None:
            found[name] = training
    return found


def _best(task: Task, summaries: Mapping[str, TrainingSummary]) -> str | None:
    metrics = sorted(task.metrics, key=lambda metric: not metric.primary)

    def badness(scores: Mapping[str, float]) -> list[float]:
        found = [(_validation(scores, metric, task), -1 if metric.higher_is_better else 1) for metric in metrics]
        return [math.inf if score is None else sign * score for score, sign in found]

    scored = [
        (badness(training.validation), name)
        for name, training in summaries.items()
        if training.task == task.checkpoints_of and has_context(task, path(name))
    ]
    return min(scored)[1] if scored else None


def _validation(scores: Mapping[str, float], metric: MetricSpec, task: Task) -> float | None:
    wanted = metric.name if task.time_scale in (None, 1.0) else f"{metric.name}_time_scale_{task.time_scale:g}"
    # The task of the stream calls by a longer name what training validates language models by.
    return scores.get(wanted, scores.get(wanted.removesuffix("_stream")))
