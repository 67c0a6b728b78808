"""The leaderboard as data: the one object that the Markdown, CSV, JSON and HTML are written from."""

import math
from typing import Any, Final, Literal

from urzoo.schema import Strict

SCHEMA_VERSION: Final = 1

Kind = Literal["shipped", "study", "submitted", "baseline"]
Status = Literal["ranked", "unranked", "outdated"]


class Row(Strict):
    """One measured result. `value`, `low` and `high` are shown in `unit`; `shown` has the metric's decimals.

    `kind`: "shipped" (a checkpoint that comes with urzoo), "study" (a network of the gating study), "submitted"
    (another of urzoo's models) or "baseline" (any other model). `recommended` marks the checkpoint to take for the
    task, chosen by its validation scores.
    `study` is true of a checkpoint that is one of several of different seeds, there to be compared with others: its
    rank is among those of the study. `training_seconds` is None where the checkpoint does not tell; it does not count
    the training of the checkpoint that this one began with, `begun_with`. `conditions` says where its training departs
    from the usual one of the task: other data, changed rows, another read-out. `context` says
    how much of the data the model reads at a time, where that is not all; `caveat` what the task says of the scores of
    checkpoints that were made for another one. `group` is the id of the group of seeds
    the row is in. `provenance` is all of the result file.
    """

    id: str
    status: Status
    rank: int | None
    reason: str | None
    model: str
    kind: Kind
    recommended: bool
    study: bool
    architecture: str
    cell: str | None
    gate: str | None
    hidden_size: int | None
    num_layers: int | None
    parameters: int
    value: float
    shown: str
    low: float | None
    high: float | None
    interval: str | None
    samples: int
    context: str | None
    caveat: str | None
    group: str | None
    training_seconds: float | None
    begun_with: str | None
    conditions: str | None
    selection_split: str
    task_version: int
    date: str
    command: str
    link: str | None
    provenance: dict[str, Any]


class SeedGroup(Strict):
    """Ranked rows that differ by the seed of their training alone: mean and sample deviation, in the task's unit.

    `rows` are the ids and `models` the names of the members, by seed; `span` is the least and the most of them.
    """

    id: str
    name: str
    kind: Kind
    cell: str | None
    gate: str | None
    hidden_size: int | None
    num_layers: int | None
    parameters: int
    seeds: tuple[int, ...]
    rows: tuple[str, ...]
    models: tuple[str, ...]
    mean: float
    deviation: float
    shown: str
    span: str
    training_seconds: float | None


class PublishedRow(Strict):
    """One published figure; `comparable` where it is in the task's primary metric and unit.

    `secondary` where it was found on an aggregator's page alone, so that nobody's paper vouches for it.
    """

    id: str
    model: str
    metric: str
    shown: str
    unit: str
    comparable: bool
    secondary: bool
    cell: str | None
    gate: str | None
    hidden_size: int | None
    parameters: int | None
    listed: str
    title: str
    authors: str
    arxiv: str
    note: str | None


class Curve(Strict):
    """The learning curve of a checkpoint: a metric on the validation rows, in the task's unit, by epoch.

    Where the data are drawn without end there are no epochs, and `epochs` are steps: `by` is "step".
    """

    model: str
    by: Literal["epoch", "step"]
    gate: str | None
    epochs: tuple[float, ...]
    values: tuple[float, ...]


class ProblemCurve(Strict):
    """A gating's learning curve on a synthetic problem: a metric in the task's unit by step, over several seeds."""

    gate: str
    seeds: int
    metric: str
    steps: tuple[int, ...]
    median: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


def bounds(unit: str) -> tuple[float, float]:
    """Between what a metric in this unit lies: no accuracy is above 100 %, no error or perplexity below 0."""
    return 0.0, 100.0 if unit == "%" else math.inf


class Section(Strict):
    """A task's part of the board. `version` is None where there are published figures but no task yet.

    `chance` is what the best answer that is always the same scores, in `unit`. `variant` is true where the checkpoints
    were trained for another task of which this is a variant.
    """

    task: str
    title: str
    description: str
    version: int | None = None
    metric: str
    metric_title: str
    unit: str
    digits: int
    higher_is_better: bool
    chance: float | None = None
    variant: bool = False
    data: str | None = None
    licence: str | None = None
    citation: str | None = None
    measured: tuple[Row, ...] = ()
    groups: tuple[SeedGroup, ...] = ()
    outdated: tuple[Row, ...] = ()
    published: tuple[PublishedRow, ...]
    curves: tuple[Curve, ...] = ()
    problem_curves: tuple[ProblemCurve, ...] = ()

    @property
    def heading(self) -> str:
        """The metric and its unit, as the head of a column: "Accuracy, %"."""
        return self.metric_title if self.unit in self.metric_title.lower() else f"{self.metric_title}, {self.unit}"

    @property
    def direction(self) -> str:
        """Whether more is better, in words."""
        return "higher is better" if self.higher_is_better else "lower is better"

    @property
    def main(self) -> tuple[Row, ...]:
        """The measured rows that are not of a study."""
        return tuple(row for row in self.measured if not row.study)

    @property
    def study(self) -> tuple[Row, ...]:
        """The measured rows of the study over gatings and seeds."""
        return tuple(row for row in self.measured if row.study)

    @property
    def best(self) -> Row | None:
        """The best of the ranked rows, whether of a study or not."""
        first = [row for row in (*self.main, *self.study) if row.rank == 1]
        return min(first, key=lambda row: -row.value if self.higher_is_better else row.value, default=None)

    @property
    def recommended(self) -> Row | None:
        """The checkpoint to take."""
        return next((row for row in self.measured if row.recommended), None)

    @property
    def bounds(self) -> tuple[float, float]:
        """Between what the metric lies."""
        return bounds(self.unit)

    def clipped(self, group: SeedGroup) -> tuple[float, float]:
        """A group's mean less and plus its deviation, within the metric's bounds."""
        low, high = self.bounds
        return max(group.mean - group.deviation, low), min(group.mean + group.deviation, high)

    def failed(self, group: SeedGroup) -> int:
        """How many members of a group are no better than chance."""
        return sum(self.at_chance(row) for row in self.measured if row.id in group.rows)

    def epochs_to(self, share: float, group: SeedGroup) -> tuple[float | None, ...]:
        """After which epoch each member of a group first had that share of the validation rows right, None for never.

        Empty where the metric is no share, or the log of a member is missing.
        """
        curves = {curve.model: curve for curve in self.curves}
        if self.unit != "%" or not curves.keys() >= set(group.models):
            return ()
        reached = (
            (epoch for epoch, value in zip(curve.epochs, curve.values, strict=True) if value >= 100 * share)
            for curve in map(curves.__getitem__, group.models)
        )
        return tuple(next(epochs, None) for epochs in reached)

    def at_chance(self, row: Row) -> bool:
        """Whether a row is no better than an answer that is always the same, or not by more than its interval."""
        if self.chance is None:
            return False
        if self.higher_is_better:
            return self.chance >= (row.value if row.low is None else row.low)
        return self.chance <= (row.value if row.high is None else row.high)

    @property
    def best_published(self) -> PublishedRow | None:
        """The first of the figures in this task's metric that a paper vouches for."""
        return next((row for row in self.published if row.comparable and not row.secondary), None)

    @property
    def reference(self) -> PublishedRow | None:
        """The published network with the gating and the cell of the best here, or the UR-LSTM where there is none.

        What this project is measured against; in this task's metric.
        """
        cells = ("LSTM", "GRU") if self.best is None or self.best.cell != "gru" else ("GRU", "LSTM")
        comparable = {row.model: row for row in reversed(self.published) if row.comparable}
        return next((comparable[f"UR-{cell}"] for cell in cells if f"UR-{cell}" in comparable), None)


class Board(Strict):
    """The whole leaderboard."""

    schema_version: Literal[1] = SCHEMA_VERSION
    sections: tuple[Section, ...]

    def section(self, task: str) -> Section:
        """The part of the board that is about `task`."""
        return next(section for section in self.sections if section.task == task)
