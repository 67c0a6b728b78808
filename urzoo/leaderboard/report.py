"""REPORT.md: what was trained, what the gatings did, where each figure stands, and what is open.

A template with figures from the board and from the checkpoints' `training.json`; no number in it is typed by hand.
What only a person can say (why something failed, what it would take) stands in `remarks.md` beside it and is taken in
as it is, provided that it holds no figure.
"""

import math
import re
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from urzoo.errors import UrzooError
from urzoo.evaluation.recommended import validation_score
from urzoo.evaluation.task import load_task
from urzoo.leaderboard.columns import EPOCHS, filled
from urzoo.leaderboard.schema import Board, ProblemCurve, PublishedRow, Row, Section, SeedGroup
from urzoo.leaderboard.tables import Right, reference_text, table, with_remarks
from urzoo.leaderboard.text import count, duration
from urzoo.markdown import markdown
from urzoo.recurrence.gates import STANDARD
from urzoo.schema import read_text
from urzoo.zoo.schema import TrainingSummary, read_training_summary

REPORT, REMARKS = "REPORT.md", "remarks.md"
# A decimal fraction, a percentage or a thousand: what a figure looks like, other than "2 processes" or "issue 7".
_FIGURE = re.compile(r"\d+[.,]\d+|\d\s*%")
# The score from which a synthetic problem counts as solved, in the task's unit.
SOLVED = {"copy": 99.0, "adding": 0.01}


def render_report(board: Board, *, remarks: Path, folders: Iterable[Path]) -> str:
    """The report as Markdown; the same board, remarks and checkpoints give the same text.

    Args:
        board: The board.
        remarks: A Markdown file of remarks, which may be missing.
        folders: Where the checkpoints are, one folder each.

    Raises:
        UrzooError: The remarks hold a figure, or cannot be read.
        CheckpointError: A training summary is damaged.
    """
    summaries = {
        path.parent.name: read_training_summary(path)
        for folder in folders
        for path in sorted(folder.glob("*/training.json"))
    }
    text: str = _template().render(
        trained=_trained(board, summaries),
        standings=_standings(board),
        comparisons=[_comparison(section) for section in board.sections if len(section.groups) > 1],
        curves=[_curves(section) for section in board.sections if section.problem_curves],
        open=_open(board),
        remarks=_remarks(remarks),
    )
    return text


def _trained(board: Board, summaries: Mapping[str, TrainingSummary]) -> str | None:
    rows = []
    for section in board.sections:
        for row in section.measured:
            if row.cell is None or row.training_seconds is None:
                continue
            training = row.provenance["model"]["training"]
            summary = summaries.get(row.model)
            if summary is not None and summary.weights_sha256 != row.provenance["model"]["weights_sha256"]:
                summary = None
            rows.append(
                [
                    markdown(row.model),
                    markdown(section.title),
                    markdown(f"{row.gate} {row.cell.upper()}"),
                    count(row.parameters),
                    f"{training['epochs']:g}",
                    str(training["seed"]),
                    _time(row),
                    f"{count(round(summary.peak_memory_mib))} MiB" if summary else "",
                    markdown(training["hardware"]),
                    _validation(section, summary),
                    f"{row.shown} {_unit(section)}".strip(),
                ]
            )
    costs = [Right(name) for name in ("Parameters", "Epochs", "Seed", "Time", "Memory")]
    head = ["Checkpoint", "Task", "Gating", *costs, "Hardware", Right("Validation"), Right("Test")]
    return table(head, rows) if rows else None


def _validation(section: Section, summary: TrainingSummary | None) -> str:
    # Checkpoints of another task may be evaluated, whose training did not see this one's metric.
    task = load_task(section.task)
    if summary is None or summary.task != task.checkpoints_of:
        return ""
    return validation_score(summary.validation, task) or ""


def _standings(board: Board) -> str | None:
    rows = []
    for section in board.sections:
        best, reference = section.best, section.reference
        if best is None:
            continue
        rows.append(
            [
                markdown(section.title),
                with_remarks(section, best),
                f"{best.shown} {_unit(section)}".strip(),
                best.interval or "",
                reference_text(reference) or "none found",
                _against(section, best) if reference else "",
                "; ".join(_listed(row) for row in section.published if row.secondary),
            ]
        )
    head = [
        "Task",
        "Best here",
        Right("Figure"),
        Right("Interval"),
        "Same method, published",
        "Difference",
        "Listed under the paper",
    ]
    return table(head, rows) if rows else None


def _listed(row: PublishedRow) -> str:
    """A figure that an aggregator's page alone has, and what is doubtful about it."""
    unit = " %" if row.unit == "%" else ""
    return f"{row.shown}{unit} ({markdown(row.note or row.listed)})"


def _against(section: Section, best: Row) -> str:
    assert section.reference is not None
    published = float(section.reference.shown)
    better = (best.value > published) == section.higher_is_better and best.value != published
    inside = best.low is not None and best.high is not None and best.low <= published <= best.high
    judged = "within the interval" if inside else "better" if better else "worse"
    return f"{best.value - published:+.{section.digits}f}, {judged}"


def _comparison(section: Section) -> dict[str, str]:
    plain = {group.cell: group for group in section.groups if group.gate == STANDARD}
    epochs = filled(EPOCHS, section, section.groups)
    rows = []
    for group in section.groups:
        base = plain.get(group.cell)
        rows.append(
            [
                markdown(f"{group.gate} {(group.cell or '').upper()}"),
                str(len(group.seeds)),
                f"{group.shown} {_unit(section)}".strip(),
                group.span,
                *(column.text(section, group) for column in epochs),
                _difference(section, group, base) if base is not None and base is not group else "",
            ]
        )
    title = f"{section.metric_title}, mean ± deviation"
    heads = ("Seeds", title, "Range", *(column.head for column in epochs), f"Against `{STANDARD}`, ± standard error")
    shown = table(["Gating", *map(Right, heads)], rows)
    best, worst = section.groups[0], section.groups[-1]
    sentence = (
        f"{markdown(best.name)} has the best mean and {markdown(worst.name)} the worst, "
        f"{abs(best.mean - worst.mean):.{section.digits}f} apart."
    )
    if epochs:
        sentence += " An epoch is the first of a seed to have that share of the held-out rows right."
    return {"title": markdown(section.title), "table": shown, "sentence": sentence}


def _difference(section: Section, group: SeedGroup, base: SeedGroup) -> str:
    if section.failed(group) or section.failed(base):
        return "none: seeds at chance"
    error = math.sqrt(sum(one.deviation**2 / len(one.seeds) for one in (group, base)))
    return f"{group.mean - base.mean:+.{section.digits}f} ± {error:.{section.digits}f}"


def _curves(section: Section) -> dict[str, str]:
    wanted = SOLVED[section.task]
    solved = {curve.gate: _solved_at(section, curve, wanted) for curve in section.problem_curves}
    sign = -1 if section.higher_is_better else 1
    order = sorted(
        section.problem_curves, key=lambda curve: (solved[curve.gate] or math.inf, sign * curve.median[-1], curve.gate)
    )
    rows = [
        [
            markdown(curve.gate),
            str(curve.seeds),
            count(curve.steps[-1]),
            count(solved[curve.gate]) or "not solved",
            f"{curve.median[-1]:.{section.digits}f}",
        ]
        for curve in order
    ]
    title = f"{section.heading}, median at the end"
    head = ["Gating", *map(Right, ("Seeds", "Steps trained", "Solved at step", title))]
    steps = [step for step in solved.values() if step is not None]
    first = [curve.gate for curve in order if steps and solved[curve.gate] == min(steps)]
    never = [curve.gate for curve in order if solved[curve.gate] is None]
    limit = "at least" if section.higher_is_better else "at most"
    sentence = f"Solved means a median of {limit} {wanted:g} over the seeds."
    if first:
        sentence += f" First to solve it: {markdown(', '.join(first))}."
    if never:
        sentence += f" Not solved within the steps trained: {markdown(', '.join(never))}."
    return {"title": markdown(section.title), "table": table(head, rows), "sentence": sentence}


def _solved_at(section: Section, curve: ProblemCurve, wanted: float) -> int | None:
    for step, value in zip(curve.steps, curve.median, strict=True):
        if value >= wanted if section.higher_is_better else value <= wanted:
            return step
    return None


def _open(board: Board) -> list[str]:
    lines = []
    own = [section for section in board.sections if section.version is not None]
    lacking = [section.title for section in own if section.best is None and not section.problem_curves]
    if lacking:
        lines.append(f"No ranked figure yet: {markdown('; '.join(lacking))}.")
    for section in own:
        best = section.best
        if best is None:
            continue
        reference = section.reference
        goals = [(reference, f"the published {reference.model}")] if reference else []
        goals += [(row, _doubtful(row)) for row in section.published if row.secondary and row.comparable]
        for goal, named in goals:
            gap = float(goal.shown) - best.value
            if gap > 0 if section.higher_is_better else gap < 0:
                lines.append(
                    f"{markdown(section.title)}: {abs(gap):.{section.digits}f} from {named}. "
                    f"{markdown(best.model)} has {count(best.parameters)} parameters and was trained for "
                    f"{_time(best)}; recipes of the paper's size, for GPUs, are in `configs/`."
                )
    return lines or [
        "Nothing: every task has a ranked figure, and none is behind what is published of the same method."
    ]


def _time(row: Row) -> str:
    """How long a model was trained, and after what."""
    return duration(row.training_seconds) + (f", after {markdown(row.begun_with)}" if row.begun_with else "")


def _doubtful(row: PublishedRow) -> str:
    return f"the {row.shown} {markdown(row.listed)}" + (f" ({markdown(row.note)})" if row.note else "")


def _remarks(path: Path) -> str:
    if not path.is_file():
        return ""
    text = read_text(path, error=UrzooError).strip()
    if found := _FIGURE.search(text):
        raise UrzooError(f"{path} holds the figure {found[0]!r}; remarks are words, figures come from the results.")
    return text


def _unit(section: Section) -> str:
    return section.unit if section.unit == "%" else ""


@cache
def _template() -> Any:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        # Markdown, not HTML: every text from outside goes through `markdown`, which escapes it.
        autoescape=False,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("report.md.jinja")
