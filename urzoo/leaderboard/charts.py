"""What the board's plots show, as data: the SVG of the page and the PNG of the README draw the same charts.

A filled mark was measured with urzoo, a hollow one is published. The accent colour stands for the UR
gating, the subject of this project; everything else is drawn in ink.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from urzoo.leaderboard.schema import Board, PublishedRow, Row, Section
from urzoo.leaderboard.text import duration


@dataclass(frozen=True)
class Axis:
    """An axis from `low` to `high` with its marks; `log` where distances stand for ratios."""

    label: str
    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    log: bool = False

    def place(self, value: float) -> float:
        """Where `value` lies between the ends of the axis, 0 to 1."""
        if self.log:
            return (math.log(value) - math.log(self.low)) / (math.log(self.high) - math.log(self.low))
        return (value - self.low) / (self.high - self.low)


@dataclass(frozen=True)
class Point:
    """A mark at `(x, y)` with its interval along the axis that carries the metric, and the row it stands for."""

    x: float
    y: float
    label: str
    title: str
    row: str
    accent: bool
    hollow: bool
    interval: tuple[float, float] | None = None


# Lines of one colour differ in their dashes, lengths of strokes and gaps; the first is solid.
DASHES: tuple[tuple[int, ...], ...] = ((), (7, 4), (2, 3), (9, 3, 2, 3))


@dataclass(frozen=True)
class Line:
    """A curve through `points`; `dashes` is one of `DASHES`."""

    points: tuple[tuple[float, float], ...]
    label: str
    accent: bool
    dashes: tuple[int, ...]


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


KINDS = {
    "parameters": "Score against the number of parameters",
    "training_cost": "Score against training time",
    "learning_curves": "Learning curves",
    "gatings": "Gatings side by side",
}


def charts(board: Board) -> list[Chart]:
    """All plots for which the board has data, by task, in the order of `KINDS`."""
    made = []
    for section in board.sections:
        made += [_against_parameters(section), _against_training(section), _curves(section), _gatings(section)]
    return [chart for chart in made if chart is not None]


@dataclass(frozen=True)
class Label:
    """A name beside the mark at `(x, y)`: `right` and `up` from it, negative to the left (ending there) and down."""

    x: float
    y: float
    text: str
    right: float
    up: float


MOST_LABELS = 8  # more names than this would cover each other; the titles of the marks remain


def place_labels(chart: Chart, width: float, height: float, character_width: float, line_height: float) -> list[Label]:
    """Names for the marks of a chart, moved down where they would touch; none if there are too many.

    Args:
        chart: The chart whose marks are named.
        width: Of the drawing area, like all lengths here in whatever unit the drawing uses.
        height: Of the drawing area.
        character_width: Of the average character.
        line_height: Of a line of text.
    """
    points = [point for point in chart.points if point.label]
    if len(points) > MOST_LABELS:
        return []
    gap = 0.75 * line_height
    labels: list[Label] = []
    taken: list[tuple[float, float, float]] = []
    for point in sorted(points, key=lambda point: (-point.y, point.x, point.label)):
        x, y = chart.x.place(point.x) * width, chart.y.place(point.y) * height
        length = character_width * len(point.label)
        leftwards = x + gap + length > width + gap
        start = x - gap - length if leftwards else x + gap
        base = y
        while any(abs(base - at) < line_height and start < end and begin < start + length for begin, end, at in taken):
            base -= line_height
        taken.append((start, start + length, base))
        labels.append(Label(point.x, point.y, point.label, -gap if leftwards else gap, base - y))
    return labels


def _against_parameters(section: Section) -> Chart | None:
    points = [_measured(section, row, row.parameters) for row in section.measured if row.parameters > 0]
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
        x=_log_axis("Parameters", [point.x for point in points], _si),
        y=_metric_axis(section, points, _reference(section)),
        points=tuple(points),
        reference=_reference(section),
    )


def _against_training(section: Section) -> Chart | None:
    points = [_measured(section, row, row.training_seconds) for row in section.measured if row.training_seconds]
    if not points:
        return None
    return Chart(
        task=section.task,
        kind="training_cost",
        title=f"{section.title}: {section.metric_title.lower()} against training time",
        description=_describe(section, points, "training time"),
        x=_log_axis("Training time, on the hardware named in the row", [point.x for point in points], duration, _TIMES),
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
        accent = _is_accent(curve.gate)
        dashes = DASHES[sum(line.accent == accent for line in lines) % len(DASHES)]
        lines.append(Line(tuple(zip(curve.epochs, curve.values, strict=True)), curve.model, accent, dashes))
    ends = [f"{curve.model} ends at {curve.values[-1]:.{section.digits}f}" for curve in curves]
    return Chart(
        task=section.task,
        kind="learning_curves",
        title=f"{section.title}: learning curves on held-out training rows",
        description=f"{section.metric_title} in {section.unit} by epoch. {'; '.join(ends[:20])}.",
        x=_linear_axis("Epoch", [0.0, *(epoch for curve in curves for epoch in curve.epochs)], margin=0.0),
        y=_linear_axis(f"Validation, {section.unit}", [value for curve in curves for value in curve.values]),
        lines=tuple(lines),
    )


def _gatings(section: Section) -> Chart | None:
    rows: list[Row | PublishedRow] = [row for row in section.measured if row.gate and row.cell]
    rows += [row for row in section.published if row.comparable and row.gate and row.cell]
    names = sorted(
        {_gating_name(row) for row in rows}, key=lambda name: (name.split()[1], name.split()[0] != "UR", name)
    )
    if len(names) < 2 or not section.measured:
        return None
    places = {name: float(len(names) - 1 - position) for position, name in enumerate(names)}
    marks = [_measured(section, row, 0) if isinstance(row, Row) else _published(section, row, 0) for row in rows]
    points = [
        replace(mark, x=mark.y, y=places[_gating_name(row)], label="") for mark, row in zip(marks, rows, strict=True)
    ]
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


def _gating_name(row: Row | PublishedRow) -> str:
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
    return _linear_axis(section.heading, values)


def _linear_axis(label: str, values: Sequence[float], margin: float = 0.06) -> Axis:
    low, high = min(values), max(values)
    spread = high - low or abs(high) * 0.02 or 1.0
    low, high = low - margin * spread, high + margin * spread
    step = _nice_step((high - low) / 6)
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return Axis(label, low, high, tuple((n * step, f"{n * step:.{digits}f}") for n in range(first, last + 1)))


def _nice_step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * (1 - 1e-9))


# Durations that people say, in seconds: from 1 second to 1,000 hours.
_TIMES = (
    1,
    2,
    5,
    10,
    30,
    *(60 * n for n in (1, 2, 5, 10, 20, 30)),
    *(3600 * n for n in (1, 2, 5, 10, 20, 50, 100, 1000)),
)
MOST_MARKS = 6


def _log_axis(
    label: str, values: Sequence[float], name: Callable[[float], str], marks: Sequence[float] | None = None
) -> Axis:
    low, high = min(values) / 1.8, max(values) * 1.8
    if marks is None:
        first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
        # 1-2-5 marks over less than two decades, decades over more.
        factors = (1, 2, 5) if high / low < 120 else (1,)
        marks = [factor * 10.0**power for power in range(first, last + 1) for factor in factors]
    inside = [mark for mark in marks if low <= mark <= high]
    inside = inside[:: -(-len(inside) // MOST_MARKS)] if inside else [min(values)]
    return Axis(label, low, high, tuple((float(mark), name(mark)) for mark in inside), log=True)


def _si(value: float) -> str:
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"
