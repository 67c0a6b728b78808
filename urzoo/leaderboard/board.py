"""Putting the board together from results and published figures.

`assemble` is a pure function of its arguments. Rows measured with urzoo and figures that others
published never stand in one list, and only measured rows have ranks. A row is ranked if it was measured
under today's version of the task, on today's data, and if it is known not to have been selected on the
test split; `reason` says why another is not. The rows of a study (checkpoints that differ by their seed) are ranked
among themselves.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from urzoo.errors import ResultError, unknown
from urzoo.evaluation.recommended import SEED
from urzoo.evaluation.schema import Result, folder_name, plain_name
from urzoo.evaluation.task import MetricSpec, Task
from urzoo.leaderboard.groups import groups, in_groups
from urzoo.leaderboard.published import Published, PublishedFile
from urzoo.leaderboard.schema import Board, Curve, Kind, ProblemCurve, PublishedRow, Row, Section, Status, bounds
from urzoo.leaderboard.text import tidy
from urzoo.recurrence.gates import CELLS, GATINGS


@dataclass(frozen=True)
class CurrentTask:
    """A task as it stands today, with the digest its data must have."""

    task: Task
    digest: str


@dataclass(frozen=True)
class Evidence:
    """A result, the file it came from as messages name it, and the link to that file from the board's folder."""

    result: Result
    file: str
    link: str | None


@dataclass(frozen=True)
class Background:
    """How a checkpoint came to be, which its results do not tell.

    Attributes:
        begun_with: The checkpoint it began with; None for drawn weights.
        learnt: The data sets that it learnt from, those of its ancestors too.
        departures: Where its recipe departs from the plain way, in words.
    """

    begun_with: str | None
    learnt: tuple[str, ...]
    departures: tuple[str, ...]

    def conditions(self, data_set: str) -> tuple[str, ...]:
        """What a reader should know of a score on a data set."""
        if data_set in self.learnt:
            return self.departures
        return (f"not trained on {data_set}, but on {', '.join(self.learnt)}", *self.departures)


def assemble(
    evidence: Iterable[Evidence],
    published: PublishedFile,
    tasks: Mapping[str, CurrentTask],
    curves: Mapping[tuple[str, str], Curve] | None = None,
    problem_curves: Mapping[str, tuple[ProblemCurve, ...]] | None = None,
    recommended: Mapping[str, str] | None = None,
    backgrounds: Mapping[str, Background] | None = None,
) -> Board:
    """Put a board together.

    Args:
        evidence: The result files' content, none of it partial.
        published: What others have published.
        tasks: Today's tasks by name.
        curves: Learning curves by task and model, each that of the weights in the result.
        problem_curves: Learning curves of the gatings on the synthetic problems, by task.
        recommended: The shipped checkpoint to take, by task.
        backgrounds: How models came to be, by model.

    Raises:
        ResultError: A result is not fit for a board (see `refuse_unfit`); the message names file and key.
    """
    rows: dict[str, list[Row]] = {name: [] for name in tasks}
    for one in evidence:
        refuse_unfit(one, tasks)
        name = one.result.task.name
        background = (backgrounds or {}).get(one.result.model.name)
        rows[name].append(_row(one, tasks[name], (recommended or {}).get(name), background))
    sections = [
        _section(
            name,
            tasks[name].task,
            rows[name],
            published,
            list((curves or {}).items()),
            (problem_curves or {}).get(name, ()),
        )
        for name in sorted(tasks, key=lambda name: (tasks[name].task.order, name))
    ]
    keys = {current.task.published for current in tasks.values()}
    sections += [_published_only(key, published) for key in published.titles if key not in keys]
    return Board(sections=tuple(sections))


def refuse_unfit(evidence: Evidence, tasks: Mapping[str, CurrentTask]) -> None:
    """Refuse a result that must not appear on a board in any form.

    Raises:
        ResultError: The task, gating or cell is unknown; the model was selected on the test split; a model of urzoo's
            does not say how it was trained; the score is not one that the metric can have; today's task has another
            primary metric or other data.
    """
    result, file = evidence.result, evidence.file
    if result.task.name not in tasks:
        raise ResultError(f"{file}: key task.name: {unknown('task', result.task.name, tasks)}")
    gate, cell = result.model.gate, result.model.cell
    if gate is not None and gate not in GATINGS:
        raise ResultError(f"{file}: key model.gate: {unknown('gate', gate, GATINGS)}")
    if cell is not None and cell not in CELLS:
        raise ResultError(f"{file}: key model.cell: {unknown('cell', cell, CELLS)}")
    training = result.model.training
    if training is None and result.model.cell is not None:
        raise ResultError(
            f"{file}: key model.training is null; expected the training record of {result.model.name}. "
            "Evaluate a folder that holds its training.json."
        )
    if training is not None and training.selection_split == "test":
        raise ResultError(
            f"{file}: key model.training.selection_split is 'test'; a model chosen on the test split cannot be on the "
            "board. Choose it on validation rows and evaluate again."
        )
    task = tasks[result.task.name].task
    for spec in task.metrics:
        _refuse_impossible(file, result, spec)
    if result.task.version == task.version:
        if result.primary_metric != task.primary_metric.name:
            raise ResultError(
                f"{file}: key primary_metric is {result.primary_metric!r}; "
                f"expected {task.primary_metric.name!r}, that of task {task.name} version {task.version}."
            )
        if result.data.name != task.data.name or result.data.split != task.data.split:
            raise ResultError(
                f"{file}: key data is {result.data.name} {result.data.split}; expected "
                f"{task.data.name} {task.data.split}, that of task {task.name} version {task.version}."
            )


def _refuse_impossible(file: str, result: Result, spec: MetricSpec) -> None:
    if spec.name not in result.metrics:
        return
    least, most = bounds(spec.unit)
    around = result.intervals.get(spec.name)
    for key, figure in {
        f"metrics.{spec.name}": result.metrics[spec.name],
        **({f"intervals.{spec.name}.{end}": getattr(around, end) for end in ("low", "high")} if around else {}),
    }.items():
        if not least <= figure * spec.scale <= most or math.isinf(figure * spec.scale):
            expected = f"{least:g} to {most:g} {spec.unit}" if most < math.inf else f"a finite number from {least:g} on"
            raise ResultError(f"{file}: key {key} is {figure!r}; expected {expected}.")


def _row(evidence: Evidence, current: CurrentTask, recommended: str | None, background: Background | None) -> Row:
    result, task = evidence.result, current.task
    model, training = result.model, result.model.training
    # An outdated result may be in a metric that the task no longer has; it is then shown as stored.
    spec = next((metric for metric in task.metrics if metric.name == result.primary_metric), None)
    scale, digits = (spec.scale, spec.digits) if spec else (1.0, 4)
    value = result.metrics[result.primary_metric] * scale
    interval = result.intervals.get(result.primary_metric)
    ends = (interval.low * scale, interval.high * scale) if interval else None
    status, reason = standing(result, current)
    kind: Kind = "baseline" if model.cell is None else "submitted"
    if model.cell is not None and model.source in ("shipped", "study"):
        kind = model.source
    return Row(
        id=f"{task.name}/{folder_name(model.name)}",
        status=status,
        rank=None,
        reason=reason,
        model=model.name,
        kind=kind,
        recommended=kind == "shipped" and model.name == recommended,
        study=kind == "study" or SEED.search(plain_name(model.name)) is not None,
        architecture=model.architecture,
        cell=model.cell,
        gate=model.gate,
        hidden_size=model.hidden_size,
        num_layers=model.num_layers,
        parameters=model.parameters,
        value=tidy(value),
        shown=f"{value:.{digits}f}",
        low=tidy(ends[0]) if ends else None,
        high=tidy(ends[1]) if ends else None,
        interval=f"{ends[0]:.{digits}f} to {ends[1]:.{digits}f}" if ends else None,
        samples=result.samples,
        context=result.data.subset,
        caveat=task.caveat_of(training.task if training else None),
        group=None,
        training_seconds=training.wall_seconds if training else None,
        begun_with=background.begun_with if background else None,
        conditions="; ".join(background.conditions(task.data.name)) or None if background else None,
        selection_split=training.selection_split if training else "unknown",
        task_version=result.task.version,
        date=result.started_at[:10],
        command=result.command,
        link=evidence.link,
        provenance=result.model_dump(mode="json"),
    )


def standing(result: Result, current: CurrentTask) -> tuple[Status, str | None]:
    """Whether a result is ranked under today's task, and if not, why."""
    if result.task.version != current.task.version:
        return (
            "outdated",
            f"measured under version {result.task.version} of the task; today's is {current.task.version}",
        )
    if result.data.digest != current.digest:
        return "outdated", f"measured on data {result.data.digest[:12]}; today's are {current.digest[:12]}"
    if result.model.training is None or result.model.training.selection_split == "unknown":
        return "unranked", "it is not known on which split the model was selected"
    return "ranked", None


def _section(
    name: str,
    task: Task,
    rows: Sequence[Row],
    published: PublishedFile,
    curves: Sequence[tuple[tuple[str, str], Curve]],
    problem_curves: tuple[ProblemCurve, ...],
) -> Section:
    spec = task.primary_metric
    fresh = [row for row in rows if row.status != "outdated"]
    measured = [row for part in (False, True) for row in _ranked([row for row in fresh if row.study is part], spec)]
    seeds = groups(measured, spec.digits, higher_is_better=spec.higher_is_better)
    figures = [row for row in published.rows if row.task == task.published]
    return Section(
        task=name,
        title=task.title,
        description=task.description,
        version=task.version,
        metric=spec.name,
        metric_title=spec.title,
        unit=spec.unit,
        digits=spec.digits,
        higher_is_better=spec.higher_is_better,
        variant=task.trained_as is not None,
        chance=None if task.chance is None else tidy(task.chance * spec.scale),
        data=f"{task.data.name}, split {task.data.split}",
        licence=task.licence,
        citation=task.citation,
        measured=tuple(in_groups(measured, seeds)),
        groups=seeds,
        outdated=tuple(sorted((row for row in rows if row.status == "outdated"), key=lambda row: row.model)),
        published=_published(name, figures, published, spec.name, spec.unit, spec.higher_is_better),
        curves=tuple(curve for (of_task, _), curve in sorted(curves, key=lambda item: item[0]) if of_task == name),
        problem_curves=problem_curves,
    )


def _published_only(key: str, published: PublishedFile) -> Section:
    figures = [row for row in published.rows if row.task == key]
    metric, unit = figures[0].metric, figures[0].unit
    higher_is_better = metric == "accuracy"
    return Section(
        task=key,
        title=published.titles[key],
        description="Published figures only: urzoo has no task for these yet.",
        metric=metric,
        metric_title=published.metrics[metric],
        unit=unit,
        digits=2,
        higher_is_better=higher_is_better,
        published=_published(key, figures, published, metric, unit, higher_is_better),
    )


def _ranked(rows: Sequence[Row], spec: MetricSpec) -> tuple[Row, ...]:
    sign = -1 if spec.higher_is_better else 1
    order = sorted(rows, key=lambda row: (row.status != "ranked", sign * row.value, row.model))
    ranked: list[Row] = []
    for position, row in enumerate(order, 1):
        if row.status != "ranked":
            ranked.append(row)
            continue
        tied = bool(ranked) and ranked[-1].value == row.value
        ranked.append(row.model_copy(update={"rank": ranked[-1].rank if tied else position}))
    return tuple(ranked)


def _published(
    section: str,
    figures: Sequence[Published],
    published: PublishedFile,
    metric: str,
    unit: str,
    higher_is_better: bool,  # noqa: FBT001 - the metric's direction
) -> tuple[PublishedRow, ...]:
    sign = -1 if higher_is_better else 1
    order = sorted(
        figures,
        key=lambda row: (row.metric != metric or row.unit != unit, sign * float(row.value), row.model, row.source),
    )
    return tuple(
        PublishedRow(
            id=f"{section}/published-{position}",
            model=row.model,
            metric=row.metric,
            shown=row.value,
            unit=row.unit,
            comparable=row.metric == metric and row.unit == unit,
            secondary=published.sources[row.source].secondary,
            cell=row.cell,
            gate=row.gate,
            hidden_size=row.hidden_size,
            parameters=row.parameters,
            listed=published.listed(row),
            title=published.sources[row.source].title,
            authors=published.sources[row.source].authors,
            arxiv=published.sources[row.source].arxiv,
            note=row.note,
        )
        for position, row in enumerate(order, 1)
    )
