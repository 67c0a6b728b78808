"""How the commands print: tables for a person, JSON for a script, both on standard output.

Notes and progress go to standard error, so that a pipe carries the answer alone.
"""

import json
from collections.abc import Sequence
from typing import Any

import typer


def print_json(content: Any) -> None:
    """Print `content` as indented JSON."""
    typer.echo(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False))


def print_table(headings: Sequence[str], rows: Sequence[Sequence[object]], *, numeric: Sequence[str] = ()) -> None:
    """Print a table, columns named in `numeric` aligned to the right; None is shown as a dash.

    What a cell holds is shown as it is: nothing in it is taken for markup.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in headings:
        table.add_column(heading, justify="right" if heading in numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text("-" if cell is None else str(cell)) for cell in row))
    Console().print(table)


def print_fields(fields: Sequence[tuple[str, object]]) -> None:
    """Print names and values, one pair a line, values aligned; pairs without a value are left out."""
    width = max(len(name) for name, _ in fields)
    for name, value in fields:
        if value is not None:
            typer.echo(f"{name:<{width}}  {value}")


def note(line: str) -> None:
    """Print one line for the person at the terminal, on standard error."""
    typer.echo(line, err=True)
