"""The figures of a run laid out in tables, one per shape: for the screen and for Markdown alike.

A cell is text that is ready to be shown; what was not measured is empty.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from urzoo.benchmark.measurements import Environment, Measurement, Report, find
from urzoo.leaderboard import tables
from urzoo.leaderboard.tables import Right
from urzoo.markdown import markdown

_ABSENT = ""
# The figures that are shown together where there is little room.
_NARROW = (("forward",), ("forward_backward",), ("decode",), ("decode_layer",), ("memory", "training_step"))


@dataclass(frozen=True)
class Sheet:
    """A table: its title, the heads of its columns, and lines of as many cells; the first column is text."""

    title: str
    heads: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]


def sheets(report: Report) -> list[Sheet]:
    """One table per shape, in the order of the run, with the columns that were measured."""
    shapes = list(dict.fromkeys(row.shape for row in report.rows))
    return [_sheet([row for row in report.rows if row.shape == shape]) for shape in shapes]


def _narrow_sheets(report: Report) -> list[Sheet]:
    """The same in tables that fit a terminal of 80 characters: one per shape and kind of figure."""
    found = []
    for shape in dict.fromkeys(row.shape for row in report.rows):
        rows = [row for row in report.rows if row.shape == shape]
        for figures in _NARROW:
            sheet = _sheet([row for row in rows if row.figure in figures or row.contender.startswith("limit-")])
            if len(sheet.heads) > 1:
                found.append(sheet)
    return found


def absences(report: Report) -> list[str]:
    """One line for each contender that could not take part, with the reason, and where, if not everywhere."""
    found: dict[tuple[str, str], list[str]] = {}
    for row in report.rows:
        if row.note:
            found.setdefault((row.contender, row.note), []).append(f"{row.shape} {row.figure.replace('_', ' ')}")
    asked = Counter(row.contender for row in report.rows)
    return [
        f"{contender}: {note}" + (f" ({', '.join(figures)})" if len(figures) < asked[contender] else "")
        for (contender, note), figures in found.items()
    ]


def threads_of(environment: Environment) -> str:
    """The number of threads in words."""
    return f"{environment.threads} {'thread' if environment.threads == 1 else 'threads'}"


def described(environment: Environment) -> str:
    """The environment in one line."""
    tied = "" if environment.tie_input_gate else " with an input gate of its own"
    return (
        f"{environment.hardware}, {threads_of(environment)}; urzoo's layers are of the cell {environment.cell} "
        f"with gate {environment.gate}{tied}; urzoo {environment.urzoo_version}, torch {environment.torch_version}, "
        f"Python {environment.python_version}; {environment.measured_on}"
    )


def markdown_table(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table in Markdown; all columns but the first are numbers."""
    return tables.table([heads[0], *map(Right, heads[1:])], [[markdown(cell) for cell in line] for line in lines])


def table(report: Report) -> RenderableType:
    """The run as tables for `rich` to print."""
    parts: list[RenderableType] = [Text(described(report.environment))]
    for sheet in _narrow_sheets(report):
        drawn = Table(title=Text(sheet.title), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
        for index, head in enumerate(sheet.heads):
            drawn.add_column(Text(head), justify="right" if index else "left", no_wrap=index == 0, overflow="fold")
        for line in sheet.lines:
            drawn.add_row(*(Text(cell) for cell in line))
        parts.append(drawn)
    parts += [Text(f"Not run: {line}") for line in absences(report)]
    return Group(*parts)


def scaling(reports: Sequence[Report]) -> RenderableType:
    """How much faster each contender is with more threads: runs that differ in these, the first being the measure."""
    drawn = Table(title="Times as fast as with the first number of threads", box=box.SIMPLE_HEAD, pad_edge=False)
    drawn.title_justify = "left"
    for head in ("shape", "figure", "contender", *(threads_of(report.environment) for report in reports)):
        drawn.add_column(Text(head))
    for first in reports[0].rows:
        if first.milliseconds is None:
            continue
        same = [
            find(report.rows, shape=first.shape, figure=first.figure, contender=first.contender) for report in reports
        ]
        cells = [
            number(first.milliseconds / row.milliseconds if row is not None and row.milliseconds else None, ".2f")
            for row in same
        ]
        drawn.add_row(first.shape, first.figure.replace("_", " "), first.contender, *cells)
    return drawn


@dataclass(frozen=True)
class _Column:
    head: str
    figure: str
    show: Callable[[Measurement], str]


def number(value: float | None, form: str) -> str:
    """A value as a cell shows it."""
    return _ABSENT if value is None else format(value, form)


def _thousands(row: Measurement) -> str:
    if row.tokens_per_second is None:
        return _ABSENT
    value = row.tokens_per_second / 1000
    return format(value, ",.0f" if value >= 100 else ".1f")


_COLUMNS = (
    _Column("forward, ktokens/s", "forward", _thousands),
    _Column("of the limit", "forward", lambda row: number(row.share_of_limit, ".0%")),
    _Column("with gates", "forward", lambda row: number(row.share_with_gates, ".0%")),
    _Column("x torch.nn.LSTM", "forward", lambda row: number(row.over_torch_lstm, ".2f")),
    _Column("x ur-lstm-torch", "forward", lambda row: number(row.over_ur_lstm_torch, ".2f")),
    _Column("x onnxruntime", "forward", lambda row: number(row.over_onnxruntime, ".2f")),
    _Column("x own fp32", "forward", lambda row: number(row.over_own_fp32, ".2f")),
    _Column("fwd+bwd, ktokens/s", "forward_backward", _thousands),
    _Column("of the limit", "forward_backward", lambda row: number(row.share_of_limit, ".0%")),
    _Column("with gates", "forward_backward", lambda row: number(row.share_with_gates, ".0%")),
    _Column("x torch.nn.LSTM", "forward_backward", lambda row: number(row.over_torch_lstm, ".2f")),
    _Column("x ur-lstm-torch", "forward_backward", lambda row: number(row.over_ur_lstm_torch, ".2f")),
    _Column("x own fp32", "forward_backward", lambda row: number(row.over_own_fp32, ".2f")),
    _Column("training memory, MiB", "memory", lambda row: number(row.peak_memory_mib, ",.0f")),
    _Column("of torch.nn.LSTM's", "memory", lambda row: number(_inverse(row.over_torch_lstm), ".2f")),
    _Column("cell's step, ms", "decode", lambda row: number(row.milliseconds, ".3f")),
    _Column("x torch.nn.LSTMCell", "decode", lambda row: number(row.over_torch_lstm, ".2f")),
    _Column("x ur-lstm-torch", "decode", lambda row: number(row.over_ur_lstm_torch, ".2f")),
    _Column("x onnxruntime", "decode", lambda row: number(row.over_onnxruntime, ".2f")),
    _Column("x own fp32", "decode", lambda row: number(row.over_own_fp32, ".2f")),
    _Column("layer's step, ms", "decode_layer", lambda row: number(row.milliseconds, ".3f")),
    _Column("x torch.nn.LSTM", "decode_layer", lambda row: number(row.over_torch_lstm, ".2f")),
    _Column("x ur-lstm-torch", "decode_layer", lambda row: number(row.over_ur_lstm_torch, ".2f")),
    _Column("x onnxruntime", "decode_layer", lambda row: number(row.over_onnxruntime, ".2f")),
    _Column("x own fp32", "decode_layer", lambda row: number(row.over_own_fp32, ".2f")),
    _Column("training step, ktokens/s", "training_step", _thousands),
    _Column("of the bare recurrence", "training_step", lambda row: number(row.share_of_recurrence, ".0%")),
)


def _inverse(value: float | None) -> float | None:
    return 1 / value if value else None


def _sheet(rows: list[Measurement]) -> Sheet:
    """The table of one shape, of the contenders that have a figure in it."""
    if not rows:
        return Sheet("", ("contender",), ())
    first = rows[0]
    measured = [row for row in rows if not row.note]
    contenders = [name for name in dict.fromkeys(row.contender for row in measured) if not name.startswith("limit-")]
    columns = []
    for column in _COLUMNS:
        cells = {row.contender: column.show(row) for row in measured if row.figure == column.figure}
        if any(cells.get(name, _ABSENT) != _ABSENT for name in contenders):
            columns.append((column.head, cells))
    lines = [
        (name, *(cells.get(name, _ABSENT) for _, cells in columns))
        for name in contenders
        if any(name in cells for _, cells in columns)
    ]
    title = (
        f"{first.shape}, batch {first.batch}, time {first.time}, input {first.input_size}, hidden {first.hidden_size}"
    )
    return Sheet(title + _limits(measured), ("contender", *(head for head, _ in columns)), tuple(lines))


def _limits(rows: list[Measurement]) -> str:
    said = []
    for dtype in ("fp32", "bf16"):
        for figure in ("forward", "forward_backward"):
            row = find(rows, shape=rows[0].shape, figure=figure, contender=f"limit-{dtype}") if rows else None
            if row is not None and row.gflops_per_second is not None:
                said.append(f"{row.gflops_per_second:,.0f} GFLOP/s in {dtype}")
                break
    return f"; limit {' and '.join(said)}" if said else ""
