"""How the commands print: tables for a person, JSON for a script, both on standard output.

Notes and progress go to standard error, so that a pipe carries the answer alone.
"""

import json
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import typer

from urzoo.errors import UsageError

# The jobs of one command, each with the options that go with it; that of "" is what is done where none is named.
Jobs = Mapping[str, Collection[str]]


def asked_job(context: typer.Context, jobs: Jobs) -> str:
    """The option that names the job of this call, "" where there is none.

    Raises:
        UsageError: Two are named, or an option that the job has no use for.
    """
    given = {
        option.opts[0]
        for option in context.command.params
        if option.name and (source := context.get_parameter_source(option.name)) and source.name == "COMMANDLINE"
    }
    if len(named := sorted(given & jobs.keys())) > 1:
        raise UsageError(f"{' and '.join(named)} are different jobs; give one of them.")
    job = next(iter(named), "")
    for option in sorted(given - {job} - {*jobs[job]}):
        fitting = " or ".join(name for name, options in jobs.items() if name and option in options)
        instead = f"goes with {fitting}" + (f", not with {job}" if job else "")
        raise UsageError(f"{option} {instead if fitting else f'does not go with {job}'}.")
    return job


def print_json(content: Any) -> None:
    """Print `content` as indented JSON."""
    typer.echo(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False))


def print_table(headings: Sequence[str], rows: Sequence[Sequence[object]], *, numeric: Sequence[str] = ()) -> None:
    """Print a table, one row a line, columns named in `numeric` aligned to the right; None is shown as a dash.

    No line is folded to the terminal's width: a name can be copied, and `grep` finds a row.
    """
    cells = [list(headings), *(["-" if cell is None else _line(cell) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(headings))]
    for line in cells:
        aligned = [
            f"{cell:>{width}}" if heading in numeric else f"{cell:<{width}}"
            for heading, cell, width in zip(headings, line, widths, strict=True)
        ]
        typer.echo("  ".join(aligned).rstrip())


def print_fields(fields: Sequence[tuple[str, object]]) -> None:
    """Print names and values, one pair a line, values aligned; pairs without a value are left out."""
    width = max(len(name) for name, _ in fields)
    for name, value in fields:
        if value is not None:
            typer.echo(f"{name:<{width}}  {_line(value)}")


def complete_checkpoint(incomplete: str) -> list[str]:
    """The shipped checkpoints whose names begin so, for the shell's completion."""
    from urzoo.zoo import checkpoints

    return [name for name in checkpoints() if name.startswith(incomplete)]


def complete_task(incomplete: str) -> list[str]:
    """The tasks whose names begin so, for the shell's completion."""
    from urzoo.evaluation import tasks

    return [name for name in tasks() if name.startswith(incomplete)]


def complete_recipe(incomplete: str) -> list[str]:
    """The recipes in configs/ and YAML files whose paths begin so, for the shell's completion."""
    files = {*Path("configs").glob("*/*.yaml"), *Path(incomplete + "x").parent.glob("*.yaml")}
    return sorted(str(file) for file in files if str(file).startswith(incomplete))


def speaks() -> bool:
    """Whether this process, of several that share a command, is the one that prints what all have done."""
    # RANK alone may be another program's, as in an array of jobs.
    return os.environ.get("RANK", "0") == "0" or os.environ.get("WORLD_SIZE", "1") == "1"


def note(line: str) -> None:
    """Print one line for the person at the terminal, on standard error."""
    typer.echo(_line(line), err=True)


def warn(line: str) -> None:
    """Print one line of warning for the person at the terminal, on standard error."""
    note(f"warning: {line}")


def _line(value: object) -> str:
    """What is printed of a value that may come from outside: one line, which cannot steer the terminal."""
    return "".join(char if char.isprintable() else " " for char in str(value))
