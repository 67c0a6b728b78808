"""What the board's plots show, as data: the SVG of the page and the PNG of the README draw the same charts.

A filled mark was measured with urzoo, a hollow one is published. The accent colour stands for the UR
gating, the subject of this project; other marks are drawn in ink. A group of seeds is one mark, its mean, with the
deviation as its bar; the single rows show in the gatings chart. Curves have a colour for each primary gate and a stroke
for each auxiliary one, the same in every chart.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from urzoo.data.generate import SYMBOLS
from urzoo.leaderboard.axes import TIMES, Axis, linear_axis, log_axis, si
from urzoo.leaderboard.schema import Board, Group, PublishedRow, Row, Section
from urzoo.leaderboard.text import duration


@dataclass(frozen=True)
class Point:
    """A mark at `(x, y)` with its interval along the axis that carries the metric, and the row or group it stands for.

    `small` where it is one of a group that has a mark of its own.
    """

    x: float
    y: float
    label: str
    title: str
    row: str
    accent: bool
    hollow: bool
    interval: tuple[float, float] | None = None
    small: bool = False


Hue = Literal["accent", "ink", "blue", "red", "green"]
_HUES: dict[str, Hue] = {"-": "ink", "C": "red", "O": "green", "U": "blue"}
# Lengths of strokes and gaps by the auxiliary gate: refined, master gates, none.
_DASHES: dict[str, tuple[int, ...]] = {"R": (), "M": (7, 4), "-": (2, 3)}
_MIXED = (9, 3, 2, 3)


@dataclass(frozen=True)
class Line:
    """A curve through `points`, with the range `low` to `high` around it where it stands for several.

    `place` counts the lines of one gating in a chart that names each of its lines; they differ in their strokes.
    """

    points: tuple[tuple[float, float], ...]
    label: str
    gate: str | None
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    place: int = 0

    @property
    def hue(self) -> Hue:
        """The colour, by the primary gate; UR, the subject, has its own."""
        return "accent" if self.gate == "UR" else _HUES[(self.gate or "-")[0]]

    @property
    def dashes(self) -> tuple[int, ...]:
        """Lengths of strokes and gaps, by the auxiliary gate; of further lines of the gating other ones."""
        first = _DASHES[self.gate[1]] if self.gate else _MIXED
        others = [dashes for dashes in (*_DASHES.values(), _MIXED) if dashes != first]
        return first if self.place == 0 else others[(self.place - 1) % len(others)]


@dataclass(frozen=True)
class Key:
    """An entry of the list of lines under a chart."""

    text: str
    line: Line


@dataclass(frozen=True)
class Chart:
    """One plot. `metric_axis` is the axis ("x" or "y") along which intervals and `reference` lie."""

    task: str
    kind: str
    title: str
    description: str
    x: Axis
    y: Axis
    points: tuple[Point, ...] = ()
    lines: tuple[Line, ...] = ()
    reference: tuple[str, float] | None = None
    metric_axis: str = "y"

    @property
    def keys(self) -> tuple[Key, ...]:
        """What the list of lines names: each line, or each gating where there are many lines."""
        if len(self.lines) <= MOST_LABELS:
            return tuple(Key(line.label, line) for line in self.lines)
        by_gate = {line.gate or "other": line for line in self.lines}
        return tuple(Key(gate, line) for gate, line in by_gate.items())


# Errors and perplexities that lie further apart than this are drawn on a logarithmic axis.
_LOG_FROM = 20.0
MOST_LABELS = 12  # more names than this would cover each other; the titles of the marks remain

KINDS = {
    "parameters": "Score against the number of parameters",
    "training_cost": "Score against training time",
    "learning_curves": "Learning curves",
    "gatings": "Gatings side by side",
    "problem_curves": "Learning curves of the gatings on synthetic problems",
}


def charts(board: Board) -> list[Chart]:
    """All plots for which the board has data, by task, in the order of `KINDS`."""
    made = []
    for section in board.sections:
        made += [_against_parameters(section), _against_training(section), _curves(section), _gatings(section)]
        made.append(_problem_curves(section))
    return [chart for chart in made if chart is not None]


def _against_parameters(section: Section) -> Chart | None:
    points = [_measured(section, row, row.parameters) for row in _alone(section) if row.parameters > 0]
    points += [_mean(section, group, group.parameters) for group in section.groups]
    if not points:
        return None
    points += [
        _published(section, row, row.parameters)
        for row in section.published
        if row.comparable and row.parameters is not None
    ]
    return Chart(
        task=section.task,
        kind="parameters",
        title=f"{section.title}: {section.metric_title.lower()} against parameters",
        description=_describe(section, points, "parameters"),
        x=log_axis("Parameters", [point.x for point in points], si),
        y=_metric_axis(section, points, _reference(section)),
        points=tuple(points),
        reference=_reference(section),
    )


def _against_training(section: Section) -> Chart | None:
    points = [_measured(section, row, row.training_seconds) for row in _alone(section) if row.training_seconds]
    points += [_mean(section, group, group.training_seconds) for group in section.groups if group.training_seconds]
    if not points:
        return None
    return Chart(
        task=section.task,
        kind="training_cost",
        title=f"{section.title}: {section.metric_title.lower()} against training time",
        description=_describe(section, points, "training time"),
        x=log_axis("Training time, on the hardware named in the row", [point.x for point in points], duration, TIMES),
        y=_metric_axis(section, points, _reference(section)),
        points=tuple(points),
        reference=_reference(section),
    )


def _curves(section: Section) -> Chart | None:
    curves = [curve for curve in section.curves if len(curve.epochs) > 1]
    if not curves:
        return None
    lines: list[Line] = []
    for curve in curves:
        same = sum(line.gate == curve.gate for line in lines) if len(curves) <= MOST_LABELS else 0
        points = tuple(zip(curve.epochs, curve.values, strict=True))
        lines.append(Line(points, curve.model, curve.gate, place=same))
    ends = [f"{curve.model} ends at {curve.values[-1]:.{section.digits}f}" for curve in curves]
    return Chart(
        task=section.task,
        kind="learning_curves",
        title=f"{section.title}: learning curves on held-out training rows",
        description=f"{section.metric_title} in {section.unit} by epoch. {'; '.join(ends[:20])}.",
        x=linear_axis("Epoch", [0.0, *(epoch for curve in curves for epoch in curve.epochs)], margin=0.0),
        y=linear_axis(f"Validation, {section.unit}", [value for curve in curves for value in curve.values]),
        lines=tuple(lines),
    )


def _gatings(section: Section) -> Chart | None:
    rows: list[Row | PublishedRow] = [row for row in section.measured if row.gate and row.cell]
    rows += [row for row in section.published if row.comparable and row.gate and row.cell]
    names = sorted({_gating_name(row) for row in rows}, key=_gating_order)
    if len(names) < 2 or not any(row.gate for row in section.measured):
        return None
    places = {name: float(len(names) - 1 - position) for position, name in enumerate(names)}
    marks = [_measured(section, row, 0) if isinstance(row, Row) else _published(section, row, 0) for row in rows]
    # The rows of a group stand a little below its mean, small and without their intervals.
    points = [
        replace(mark, x=mark.y, y=places[_gating_name(row)] - 0.22, label="", interval=None, small=True)
        if isinstance(row, Row) and row.group
        else replace(mark, x=mark.y, y=places[_gating_name(row)], label="")
        for mark, row in zip(marks, rows, strict=True)
    ]
    means = [(group, _mean(section, group, 0)) for group in section.groups if group.gate and group.cell]
    points += [replace(mark, x=mark.y, y=places[_gating_name(group)], label="") for group, mark in means]
    marks += [mark for _, mark in means]
    return Chart(
        task=section.task,
        kind="gatings",
        title=f"{section.title}: gatings side by side",
        description=f"{section.metric_title} in {section.unit} by gating and cell: {', '.join(names)}.",
        x=_metric_axis(section, marks, None),
        y=Axis("", -0.5, len(names) - 0.5, tuple((places[name], name) for name in names)),
        points=tuple(points),
        metric_axis="x",
    )


def _gating_order(name: str) -> tuple[int, int, str]:
    """LSTM before GRU; primary gates U, O, C, none, and auxiliary ones R, M, none."""
    gate, cell = name.split()
    return (cell != "LSTM", "UOC-".index(gate[0]) * 3 + "RM-".index(gate[1]), name)


def _problem_curves(section: Section) -> Chart | None:
    curves = section.problem_curves
    if not curves:
        return None
    chance = _CHANCE.get(section.task)
    values = [value for curve in curves for value in (*curve.low, *curve.high)] + ([chance] if chance else [])
    logarithmic = min(values) > 0 and not section.higher_is_better
    ends = [f"{curve.gate} ends at {curve.median[-1]:.4g} ({curve.seeds} seeds)" for curve in curves]
    return Chart(
        task=section.task,
        kind="problem_curves",
        title=f"{section.title}: gatings by training step",
        description=f"{section.heading}, the median over the seeds, by training step. {'; '.join(ends)}.",
        x=linear_axis("Training step", [0.0, *(step for curve in curves for step in curve.steps)], margin=0.0),
        y=log_axis(section.heading, values, lambda value: f"{value:g}")
        if logarithmic
        else linear_axis(section.heading, values),
        lines=tuple(
            Line(tuple(zip(curve.steps, curve.median, strict=True)), curve.gate, curve.gate, curve.low, curve.high)
            for curve in curves
        ),
        reference=("knowing nothing", chance) if chance else None,
    )


# What always giving the same answer scores: one of the symbols; the mean, whose square error is twice 1/12.
_CHANCE = {"copy": 100 / SYMBOLS, "adding": 1 / 6}


def _alone(section: Section) -> list[Row]:
    """The rows that no group stands for."""
    return [row for row in section.measured if row.group is None]


def _mean(section: Section, group: Group, x: float) -> Point:
    return Point(
        x=float(x),
        y=group.mean,
        label=group.name,
        title=f"{group.name}: {group.shown} {section.unit}, mean and deviation of {len(group.seeds)} seeds, measured",
        row=group.id,
        accent=_is_accent(group.gate),
        hollow=False,
        interval=(group.mean - group.deviation, group.mean + group.deviation),
    )


def _measured(section: Section, row: Row, x: float) -> Point:
    interval = (row.low, row.high) if row.low is not None and row.high is not None else None
    return Point(
        x=float(x),
        y=row.value,
        label=row.model,
        title=f"{row.model}: {row.shown} {section.unit}, measured {row.date}",
        row=row.id,
        accent=_is_accent(row.gate),
        hollow=False,
        interval=interval,
    )


def _published(section: Section, row: PublishedRow, x: float) -> Point:
    return Point(
        x=float(x),
        y=float(row.shown),
        label=row.model,
        title=f"{row.model}: {row.shown} {section.unit}, published ({row.listed})",
        row=row.id,
        accent=_is_accent(row.gate),
        hollow=True,
    )


def _is_accent(gate: str | None) -> bool:
    return gate == "UR"


def _gating_name(row: Row | PublishedRow | Group) -> str:
    return f"{row.gate} {(row.cell or '').upper()}"


def _reference(section: Section) -> tuple[str, float] | None:
    """The published UR-LSTM, where its figure is in the metric of the section."""
    row = section.reference
    return (f"UR-LSTM published {row.shown}", float(row.shown)) if row else None


def _describe(section: Section, points: Sequence[Point], against: str) -> str:
    shown = [point.title for point in points[:20]]
    more = f" and {len(points) - 20} more" if len(points) > 20 else ""
    return f"{section.metric_title} in {section.unit} against {against}. {'; '.join(shown)}{more}."


def _metric_axis(section: Section, points: Sequence[Point], reference: tuple[str, float] | None) -> Axis:
    values = [point.y for point in points]
    values += [end for point in points if point.interval for end in point.interval]
    if reference:
        values.append(reference[1])
    if not section.higher_is_better and min(values) > 0 and max(values) > _LOG_FROM * min(values):
        return log_axis(section.heading, values, si)
    return linear_axis(section.heading, values)
