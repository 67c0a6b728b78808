"""The errors urzoo raises for a user's mistake or a broken input, each with a message of one line.

A message names the argument, the value got, what was expected and what to type instead. The command
line prints it without a traceback and exits with `exit_code`; from Python they are ordinary exceptions.
"""

import difflib
from collections.abc import Iterable


class UrzooError(Exception):
    """Something went wrong that is not a bug of urzoo; exit code 1."""

    exit_code = 1


class UsageError(UrzooError, ValueError):
    """An argument, name or option is not one that urzoo accepts; exit code 2."""

    exit_code = 2


class ShapeError(UsageError):
    """Shapes, dtypes or devices of tensors do not agree."""


class BackendError(UsageError):
    """A back end is unknown, or cannot run on the given inputs."""


class RecipeError(UsageError):
    """A recipe has an unknown, missing or impossible key."""


class CheckpointError(UrzooError):
    """A checkpoint folder is missing, incomplete or damaged."""


class DataError(UrzooError):
    """A data set cannot be had, or is not the one its description promises."""


class ResultError(UrzooError):
    """A result file is malformed, lacks provenance, or is of a schema that is not understood."""


class StaleError(UrzooError):
    """A generated file differs from what its sources give."""


MOST_NAMES = 20
"""How many of the accepted names a message lists."""


def one_line(failure: object, most: int = 200) -> str:
    """What a failure says, for the middle of a message: one line, no full stop, its type where it says nothing.

    What cannot be printed is written as in a Python string, because it may be a file's and steer a terminal.

    Args:
        failure: An exception of another library, or its text.
        most: Characters at most; the rest is cut off.
    """
    text = " ".join(str(failure).split()) or type(failure).__name__
    text = "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
    return text.rstrip(".") if len(text) <= most else f"{text[: most - 3]}..."


def unknown(kind: str, value: object, choices: Iterable[str]) -> str:
    """The message for a name that is not one of `choices`, with near matches first.

    Args:
        kind: What the name stands for, as the user wrote it: "task", "gate", "recipe key".
        value: What was given.
        choices: The accepted names.
    """
    known = sorted(choices)
    listed = ", ".join(known[:MOST_NAMES]) or "none"
    more = f" and {len(known) - MOST_NAMES} more" if len(known) > MOST_NAMES else ""
    return f"unknown {kind} {str(value)!r}.{near_matches(value, known)} Available: {listed}{more}."


def near_matches(value: object, choices: Iterable[str]) -> str:
    """A question that names those of `choices` closest to `value`, with a blank before it; empty if none is close."""
    known = {name.lower(): name for name in sorted(choices)}
    near = difflib.get_close_matches(str(value).lower(), known, n=3, cutoff=0.5)
    return f" Did you mean {' or '.join(repr(known[name]) for name in near)}?" if near else ""
