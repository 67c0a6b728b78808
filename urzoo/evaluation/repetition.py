"""A result measured again: with the settings that it names, and compared metric by metric."""

from dataclasses import dataclass

from urzoo.errors import ResultError
from urzoo.evaluation.runner import Settings
from urzoo.evaluation.schema import Result
from urzoo.evaluation.task import MetricSpec, Task


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


def repetitions(stored: Result, measured: Result, task: Task) -> list[Repetition]:
    """The task's metrics of two results of the same rows.

    Raises:
        ResultError: The stored result lacks one.
    """
    for spec in task.metrics:
        if spec.name not in stored.metrics:
            raise ResultError(f"the result of {stored.model.name} on {task.name} lacks {spec.name}; evaluate again.")
    return [
        Repetition(
            stored.model.name, task.name, spec, stored.metrics[spec.name], measured.metrics[spec.name], spec.tolerance
        )
        for spec in task.metrics
    ]
