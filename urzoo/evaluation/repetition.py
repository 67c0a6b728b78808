"""A result measured again: with the settings that it names, and compared metric by metric."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from urzoo.evaluation.runner import Evaluation, Settings, Subject
from urzoo.evaluation.schema import Result
from urzoo.evaluation.task import MetricSpec, Task

if TYPE_CHECKING:
    from urzoo.data import Split


@dataclass(frozen=True)
class Repetition:
    """One metric of one result, as stored and as measured again; `tolerance` is what may lie between them."""

    model: str
    task: str
    metric: MetricSpec
    stored: float
    measured: float
    tolerance: float

    @property
    def agrees(self) -> bool:
        """Whether the two differ by no more than the tolerance."""
        return abs(self.stored - self.measured) <= self.tolerance


def settings_of(result: Result) -> Settings:
    """The settings with which a result was measured."""
    return Settings(result.batch_size, dtype=result.dtype, seed=result.seed)


def repeated(result: Result, subject: Subject, task: Task, split: "Split", *, progress: bool) -> Result:
    """What the evaluation of a result gives here, on all of its rows or on some of them.

    Args:
        result: As stored.
        subject: The checkpoint it is about.
        task: Its task.
        split: Its rows.
        progress: Show a progress bar on stderr if that is a terminal.
    """
    return Evaluation(subject, task, split, settings_of(result)).run(progress=progress).result


def repetitions(stored: Result, measured: Result, task: Task) -> list[Repetition]:
    """The task's metrics of two results of the same rows."""
    return [
        Repetition(
            stored.model.name, task.name, spec, stored.metrics[spec.name], measured.metrics[spec.name], spec.tolerance
        )
        for spec in task.metrics
    ]
