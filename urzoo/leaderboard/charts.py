"""What the board's plots show, as data; `svg.py` draws them, for the page and for Markdown alike.

A filled mark was measured with urzoo, a hollow one is published. The accent colour stands for the paper's method, the
subject of this project; other marks are drawn in ink. A group of seeds is one mark, its mean, with the deviation as its
bar; its single rows are small marks below. Curves have the colour and the stroke of their gating. A plot is drawn where
there are two or more to compare.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from urzoo.leaderboard.axes import Axis, linear_axis, log_axis
from urzoo.leaderboard.schema import Board, ProblemCurve, PublishedRow, Row, Section, SeedGroup
from urzoo.recurrence.gates import AUXILIARY, PRIMARY, STANDARD, SUBJECT, Gating


@dataclass(frozen=True)
class Point:
    """A mark at `x` on the line `y` of a chart, with its interval, and the row or group it stands for.

    `small` where it is one of a group that has a mark of its own.
    """

    x: float
    y: float
    title: str
    row: str
    accent: bool
    hollow: bool
    interval: tuple[float, float] | None = None
    small: bool = False


@dataclass(frozen=True)
class Line:
    """A curve through `points`, with the range `low` to `high` around it where it stands for several.

    `nth` counts the lines of one gating in a chart that names each of its lines; they differ in their strokes.
    """

    points: tuple[tuple[float, float], ...]
    label: str
    gate: str | None
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    nth: int = 0

    @property
    def dashes(self) -> tuple[int, ...]:
        """Lengths of strokes and gaps: those of the gating, and other ones for further lines of it."""
        first = Gating(self.gate).dashes if self.gate else _MIXED
        others = [dashes for dashes in (*(gate.dashes for gate in AUXILIARY.values()), _MIXED) if dashes != first]
        return first if self.nth == 0 else others[(self.nth - 1) % len(others)]


@dataclass(frozen=True)
class Chart:
    """One plot: marks on named lines (`names`, from the top) along `x`, or curves over `x` and `y`.

    `references` are named values of the metric, drawn across: on `x` where there are named lines, else on `y`.
    `task` is "" for the plot of the whole board; `panel` tells the parts of a plot that is drawn in several apart.
    """

    task: str
    kind: str
    title: str
    description: str
    x: Axis
    y: Axis | None = None
    names: tuple[str, ...] = ()
    points: tuple[Point, ...] = ()
    lines: tuple[Line, ...] = ()
    references: tuple[tuple[str, float], ...] = ()
    panel: str = ""

    def with_panel(self, title: str) -> str:
        """A title of the chart, and after it the panel where there is one."""
        return f"{title}, {self.panel}" if self.panel else title

    @property
    def keys(self) -> tuple[Line, ...]:
        """The lines that the list below the chart names: each, or one for each gating where there are many."""
        if len(self.lines) <= MOST_KEYS:
            return self.lines
        by_gate = {line.gate or "other": replace(line, label=line.gate or "other") for line in self.lines}
        return tuple(by_gate.values())


_MIXED = (9, 3, 2, 3)
# Errors and perplexities that lie further apart than this are drawn on a logarithmic axis.
_LOG_FROM = 20.0
MOST_KEYS = 6
MOST_ROWS = 14  # measured ones in a plot, and as many published ones; the table has all
MOST_LETTERS = 26  # of a name beside a plot

KINDS = {
    "overview": "Error on each task, best measured and published",
    "standings": "Measured and published",
    "learning_curves": "Learning curves",
    "gatings": "Gatings side by side",
    "problem_curves": "Gatings by training step",
}


def charts(board: Board) -> list[Chart]:
    """All plots for which the board has data: that of the board, then by task in the order of `KINDS`."""
    made = [_overview(board)]
    tasks = re.compile(rf"-({'|'.join(re.escape(section.task) for section in board.sections)})$")
    for section in board.sections:
        made += [_standings(section, tasks), _curves(section), _gatings(section), *_problem_curves(section)]
    return [chart for chart in made if chart is not None]


def _overview(board: Board) -> Chart | None:
    """What is left to 100 % on each task with an accuracy, on one logarithmic axis."""
    shown = [
        (section, best)
        for section in board.sections
        if section.unit == "%"
        and section.higher_is_better
        and not section.variant
        and (best := section.best) is not None
    ]
    if len(shown) < 2:
        return None
    marks: list[Point] = []
    for line, (section, best) in enumerate(shown):
        quoted = {row.id: row for row in (section.best_published, section.reference) if row}
        marks += [_measured(section, best, line), *(_published(section, row, line) for row in quoted.values())]
    # An accuracy of 100 % has no place on a logarithmic axis: it is drawn left of all others, and the axis says so.
    least = (
        min((100.0 - end for mark in marks for end in (mark.x, *(mark.interval or ())) if end < 100.0), default=1.0) / 2
    )
    points = [_as_error(mark, least) for mark in marks]
    none = "; at the left end none" if any(point.x == least for point in points) else ""
    ends = [end for point in points for end in (point.x, *(point.interval or ()))]
    return Chart(
        task="",
        kind="overview",
        title="Error on each task",
        description=f"What is left to 100 % of each task's accuracy, lower is better. {_listed(points)}.",
        x=log_axis(f"Error, %{none}", ends),
        names=tuple(_short(section.title) for section, _ in shown),
        points=tuple(points),
    )


def _as_error(mark: Point, least: float) -> Point:
    interval = mark.interval and (max(100.0 - mark.interval[1], least), max(100.0 - mark.interval[0], least))
    return replace(mark, x=max(100.0 - mark.x, least), interval=interval)


def _standings(section: Section, tasks: re.Pattern[str]) -> Chart | None:
    """Each model on a line of its own, the best first; `tasks` finds the task at the end of a model's name."""
    published = [row for row in section.published if row.comparable and not row.secondary]
    # Of many published figures the best, and those of the gatings that are compared here.
    kept = [row for place, row in enumerate(published) if place < MOST_ROWS or row.gate]
    left_out = f", {len(kept)} of {len(published)} published" if len(kept) < len(published) else ""
    rows: list[Row | PublishedRow] = [*section.main[:MOST_ROWS], *kept]
    if len(rows) < 2 or not section.main:
        return None
    rows.sort(key=lambda row: (-_value(row) if section.higher_is_better else _value(row), row.model))
    points = [
        _measured(section, row, line) if isinstance(row, Row) else _published(section, row, line)
        for line, row in enumerate(rows)
    ]
    references = _chance(section, section.main)
    ends = {found[0] if (found := tasks.search(row.model)) else "" for row in section.main}
    # What tells none of them from another: this task, or another one that all were trained for.
    suffix = (ends.pop() if len(ends) == 1 else "") or f"-{section.task}"
    return Chart(
        task=section.task,
        kind="standings",
        title=f"{section.title}{left_out}",
        description=f"{section.heading} of each model{left_out}. {_listed(points)}.",
        x=_metric_axis(section, points, references),
        names=tuple(_short(row.model.removesuffix(suffix)) for row in rows),
        points=tuple(points),
        references=references,
    )


def _curves(section: Section) -> Chart | None:
    study = {row.model for row in section.study}
    curves = [curve for curve in section.curves if len(curve.epochs) > 1 and curve.model not in study]
    if len(curves) < 2:
        return None
    lines: list[Line] = []
    for curve in curves:
        same = sum(line.gate == curve.gate for line in lines) if len(curves) <= MOST_KEYS else 0
        lines.append(Line(tuple(zip(curve.epochs, curve.values, strict=True)), curve.model, curve.gate, nth=same))
    ends = [f"{curve.model} ends at {curve.values[-1]:.{section.digits}f}" for curve in curves]
    return Chart(
        task=section.task,
        kind="learning_curves",
        title=section.title,
        description=f"{section.metric_title} in {section.unit} on held-out training rows, by {curves[0].by}. "
        f"{'; '.join(ends[:20])}.",
        x=linear_axis(
            curves[0].by.capitalize(), [0.0, *(epoch for curve in curves for epoch in curve.epochs)], margin=0.0
        ),
        y=linear_axis(
            f"Validation, {section.unit}", [value for curve in curves for value in curve.values], section.bounds
        ),
        lines=tuple(lines),
    )


def _gatings(section: Section) -> Chart | None:
    """The means of the study's groups on a line for each gating and cell, the single rows below, and the published."""
    groups = [group for group in section.groups if group.gate and group.cell]
    rows: list[Row | PublishedRow] = [row for row in section.study if row.group]
    rows += [row for row in section.published if row.comparable and row.gate and row.cell and not row.secondary]
    of = {one.id: Gating(one.gate, one.cell) for one in (*groups, *rows) if one.gate and one.cell}
    order = sorted({(of[group.id].order, _name(group)) for group in groups})
    names = tuple(name for _, name in order)
    if len(names) < 2:
        return None
    points: list[Point] = []
    for row in rows:
        if row.id not in of or _name(row) not in names:
            continue
        line = names.index(_name(row))
        if isinstance(row, Row):
            points.append(replace(_measured(section, row, line + 0.25), interval=None, small=True))
        else:
            points.append(_published(section, row, line))
    points += [_mean(section, group, names.index(_name(group))) for group in groups]
    references = _chance(section, section.study)
    return Chart(
        task=section.task,
        kind="gatings",
        title=section.title,
        description=f"{section.heading} by gating and cell. {_listed(points)}.",
        x=_metric_axis(section, points, references),
        names=names,
        points=tuple(points),
        references=references,
    )


def _problem_curves(section: Section) -> list[Chart]:
    """The gatings' curves with their ranges; where they are many, a panel for each primary gate, of one scale.

    Each panel has the standard gating's curve to compare with.
    """
    curves = sorted(section.problem_curves, key=lambda curve: Gating(curve.gate).order)
    if len(curves) < 2:
        return []
    values = [value for curve in curves for value in (*curve.low, *curve.high)]
    chance = section.chance
    at_chance = chance is not None and min(values) <= chance <= max(values)
    logarithmic = min(values) > 0 and not section.higher_is_better
    whole = Chart(
        task=section.task,
        kind="problem_curves",
        title=section.title,
        description="",
        x=linear_axis("Training step", [0.0, *(step for curve in curves for step in curve.steps)], margin=0.0),
        y=log_axis(section.heading, values) if logarithmic else linear_axis(section.heading, values, section.bounds),
        references=(("chance", chance),) if chance is not None and at_chance else (),
    )
    panels: dict[str, list[ProblemCurve]] = {}
    for curve in curves:
        panels.setdefault(PRIMARY[Gating(curve.gate).primary].meaning if len(curves) > MOST_KEYS else "", []).append(
            curve
        )
    made = []
    for panel, own in panels.items():
        standard = [curve for curve in curves if curve.gate == STANDARD and curve not in own]
        ends = [f"{curve.gate} ends at {curve.median[-1]:.4g} ({curve.seeds} seeds)" for curve in (*own, *standard)]
        made.append(
            replace(
                whole,
                panel=panel,
                description=f"{section.heading}, the median over the seeds, by training step. {'; '.join(ends)}.",
                lines=(
                    *(replace(_median(curve), low=curve.low, high=curve.high) for curve in own),
                    *map(_median, standard),
                ),
            )
        )
    return made


def _median(curve: ProblemCurve) -> Line:
    return Line(tuple(zip(curve.steps, curve.median, strict=True)), curve.gate, curve.gate)


def _mean(section: Section, group: SeedGroup, line: float) -> Point:
    return Point(
        x=group.mean,
        y=line,
        title=f"{group.name}: {group.shown} {section.unit}, mean and deviation of {len(group.seeds)} seeds, measured",
        row=group.id,
        accent=group.gate == SUBJECT,
        hollow=False,
        interval=section.clipped(group),
    )


def _measured(section: Section, row: Row, line: float) -> Point:
    return Point(
        x=row.value,
        y=line,
        title=f"{row.model}: {row.shown} {section.unit}, measured {row.date}",
        row=row.id,
        accent=row.gate == SUBJECT,
        hollow=False,
        interval=(row.low, row.high) if row.low is not None and row.high is not None else None,
    )


def _published(section: Section, row: PublishedRow, line: float) -> Point:
    return Point(
        x=float(row.shown),
        y=line,
        title=f"{row.model}: {row.shown} {section.unit}, published ({row.listed})",
        row=row.id,
        accent=row.gate == SUBJECT,
        hollow=True,
    )


def _value(row: Row | PublishedRow) -> float:
    return row.value if isinstance(row, Row) else float(row.shown)


def _name(row: Row | PublishedRow | SeedGroup) -> str:
    return f"{row.gate} {(row.cell or '').upper()}"


def _short(name: str) -> str:
    return name if len(name) <= MOST_LETTERS else f"{name[: MOST_LETTERS - 1]}…"


def _chance(section: Section, rows: Sequence[Row]) -> tuple[tuple[str, float], ...]:
    """The level of chance, where a row stands at it."""
    if section.chance is None or not any(section.at_chance(row) for row in rows):
        return ()
    return (("chance", section.chance),)


def _listed(points: Sequence[Point]) -> str:
    more = f" and {len(points) - 20} more" if len(points) > 20 else ""
    return "; ".join(point.title for point in points[:20]) + more


def _metric_axis(section: Section, points: Sequence[Point], references: Sequence[tuple[str, float]]) -> Axis:
    values = [
        *(value for _, value in references),
        *(end for point in points for end in (point.x, *(point.interval or ()))),
    ]
    if not section.higher_is_better and min(values) > 0 and max(values) > _LOG_FROM * min(values):
        return log_axis(section.heading, values)
    return linear_axis(section.heading, values, section.bounds)
