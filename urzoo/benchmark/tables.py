"""The figures of a run laid out in tables, one per shape: for the screen and for Markdown alike.

A cell is text that is ready to be shown; what was not measured is "-".
"""

from collections.abc import Callable
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from urzoo.benchmark.rows import Environment, Report, Row, find

_ABSENT = "-"


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


def absences(report: Report) -> list[str]:
    """One line for each contender that could not take part, with the reason."""
    return list(dict.fromkeys(f"{row.contender}: {row.note}" for row in report.rows if row.note))


def described(environment: Environment) -> str:
    """The environment in one line."""
    tied = "" if environment.tie_input_gate else " with an input gate of its own"
    threads = "thread" if environment.threads == 1 else "threads"
    return (
        f"{environment.hardware}, {environment.threads} {threads}; urzoo's layers are of the cell {environment.cell} "
        f"with gate {environment.gate}{tied}; urzoo {environment.urzoo_version}, torch {environment.torch_version}, "
        f"Python {environment.python_version}; {environment.measured_on}"
    )


def table(report: Report) -> RenderableType:
    """The run as tables for `rich` to print."""
    parts: list[RenderableType] = [Text(described(report.environment))]
    for sheet in sheets(report):
        drawn = Table(title=Text(sheet.title), title_justify="left")
        for index, head in enumerate(sheet.heads):
            drawn.add_column(Text(head), justify="right" if index else "left")
        for line in sheet.lines:
            drawn.add_row(*(Text(cell) for cell in line))
        parts.append(drawn)
    parts += [Text(f"Not run: {line}") for line in absences(report)]
    return Group(*parts)


@dataclass(frozen=True)
class _Column:
    head: str
    figure: str
    show: Callable[[Row], str]


def _number(value: float | None, form: str) -> str:
    return _ABSENT if value is None else format(value, form)


def _thousands(row: Row) -> str:
    if row.tokens_per_second is None:
        return _ABSENT
    value = row.tokens_per_second / 1000
    return format(value, ",.0f" if value >= 100 else ".1f")


_COLUMNS = (
    _Column("forward, ktokens/s", "forward", _thousands),
    _Column("of the limit", "forward", lambda row: _number(row.share_of_limit, ".0%")),
    _Column("x torch.nn.LSTM", "forward", lambda row: _number(row.over_torch_lstm, ".2f")),
    _Column("x ur-lstm-torch", "forward", lambda row: _number(row.over_ur_lstm_torch, ".2f")),
    _Column("x own fp32", "forward", lambda row: _number(row.over_own_fp32, ".2f")),
    _Column("fwd+bwd, ktokens/s", "forward_backward", _thousands),
    _Column("of the limit", "forward_backward", lambda row: _number(row.share_of_limit, ".0%")),
    _Column("x torch.nn.LSTM", "forward_backward", lambda row: _number(row.over_torch_lstm, ".2f")),
    _Column("x ur-lstm-torch", "forward_backward", lambda row: _number(row.over_ur_lstm_torch, ".2f")),
    _Column("x own fp32", "forward_backward", lambda row: _number(row.over_own_fp32, ".2f")),
    _Column("training memory, MiB", "memory", lambda row: _number(row.peak_memory_mib, ",.0f")),
    _Column("of torch.nn.LSTM's", "memory", lambda row: _number(_inverse(row.over_torch_lstm), ".2f")),
    _Column("decoding step, ms", "decode", lambda row: _number(row.milliseconds, ".3f")),
    _Column("training step, ktokens/s", "training_step", _thousands),
    _Column("of the bare recurrence", "training_step", lambda row: _number(row.share_of_recurrence, ".0%")),
)


def _inverse(value: float | None) -> float | None:
    return 1 / value if value else None


def _sheet(rows: list[Row]) -> Sheet:
    first = rows[0]
    measured = [row for row in rows if not row.note]
    contenders = [name for name in dict.fromkeys(row.contender for row in measured) if not name.startswith("limit-")]
    columns = []
    for column in _COLUMNS:
        cells = {row.contender: column.show(row) for row in measured if row.figure == column.figure}
        if any(cells.get(name, _ABSENT) != _ABSENT for name in contenders):
            columns.append((column.head, cells))
    lines = [(name, *(cells.get(name, _ABSENT) for _, cells in columns)) for name in contenders]
    title = (
        f"{first.shape}: batch {first.batch}, time {first.time}, input {first.input_size}, hidden {first.hidden_size}"
    )
    return Sheet(title + _limits(measured), ("contender", *(head for head, _ in columns)), tuple(lines))


def _limits(rows: list[Row]) -> str:
    said = []
    for dtype in ("fp32", "bf16"):
        for figure in ("forward", "forward_backward"):
            row = find(rows, shape=rows[0].shape, figure=figure, contender=f"limit-{dtype}") if rows else None
            if row is not None and row.gflops_per_second is not None:
                said.append(f"{row.gflops_per_second:,.0f} GFLOP/s in {dtype}")
                break
    return f"; limit {' and '.join(said)}" if said else ""
