"""The `urzoo` command: it parses arguments, calls the package's functions and prints what they return.

A user's mistake ends in one line on standard error, without a traceback. What torch or transformers is needed for is
imported inside the commands, so that `urzoo --help` answers at once.

Exit codes: 0 done; 2 what was typed is wrong (an option, a name, a folder that is not there, a recipe or task file);
1 anything else that went wrong or does not hold (damaged files, data that are not at hand, the Hub's refusal, a figure
that differs, a stale board); 130 interrupted.
"""

import os
import sys
import warnings
from pathlib import Path

import typer
from typer.exceptions import Abort, Exit, TyperException

from urzoo.cli import benchmark, catalog, data, evaluation, hub, training
from urzoo.cli.output import note
from urzoo.errors import UrzooError

INTERRUPTED = 130
_INTERRUPTED_MESSAGE = "interrupted; what was finished is kept, the same command goes on from there."

app = typer.Typer(
    name="urzoo",
    help="Model zoo and benchmark harness for UR-LSTM: list, load, evaluate, train and share checkpoints.",
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
for part in (catalog, evaluation, data, training, hub, benchmark):
    part.register(app)


@app.callback(invoke_without_command=True)
def options(
    version: bool = typer.Option(False, "--version", help="Print the version and exit.", is_eager=True),  # noqa: FBT001, FBT003
) -> None:
    """Model zoo and benchmark harness for UR-LSTM: list, load, evaluate, train and share checkpoints.

    Example:

        urzoo list
    """
    if version:
        from importlib.metadata import version as installed_version

        typer.echo(f"urzoo {installed_version('urzoo')}")
        raise Exit(0)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Args:
        arguments: What follows `urzoo`; the process's own arguments when omitted.
    """
    if arguments is None:
        _open_closed_streams()
        # A warning is for whoever typed the command: one line, without the place in urzoo's source.
        warnings.formatwarning = lambda message, *_, **__: f"warning: {' '.join(str(message).split())}\n"
    try:
        Path.cwd()
    except FileNotFoundError:
        # Nothing could be read or written by a relative path, and Intel's MKL ends the process.
        return _fail("the current folder has been removed; change to another one.", 1)
    try:
        code = app(args=arguments, prog_name="urzoo", standalone_mode=False)
        sys.stdout.flush()
    except TyperException as mistake:
        return _wrong_use(mistake)
    except Exit as end:
        code = end.exit_code
    except UrzooError as error:
        return _fail(str(error), error.exit_code)
    except (KeyboardInterrupt, Abort):
        return _fail(_INTERRUPTED_MESSAGE, INTERRUPTED)
    except SystemExit as end:
        # With 1 typer leaves where the reader of a pipe has gone.
        if isinstance(end.__context__, BrokenPipeError):
            return 0
        raise
    except OSError as error:
        if error.filename is None:
            # Standard output may take nothing; what it still holds would fail again when Python ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            # The reader of a pipe, such as `head`, has gone: nothing is wrong, and there is nobody left to tell.
            return 0
        return _fail(f"{f'{error.filename}: ' if error.filename else ''}{error.strerror or error}.", 1)
    if code == INTERRUPTED:
        # typer makes this exit code of Ctrl-C, and says nothing.
        return _fail(_INTERRUPTED_MESSAGE, INTERRUPTED)
    return code if isinstance(code, int) else 0


def _open_closed_streams() -> None:
    """Put the null device in place of closed standard streams, as with `>&-`: else the next file takes their numbers,
    and gets what libraries print."""
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w", encoding="utf-8"))  # noqa: PTH123, SIM115


def _wrong_use(mistake: TyperException) -> int:
    context = getattr(mistake, "ctx", None)
    command = context.command_path if context is not None else "urzoo"
    message = " ".join(mistake.format_message().split())
    if type(mistake).__name__ == "NoArgsIsHelpError":
        typer.echo(mistake.format_message())
        return 2
    if (details := getattr(mistake.__cause__, "errors", None)) is not None:
        # Of what does not fit a type typer tells the reason, and not what was given.
        message = f"{message.rstrip('.')}; it is {details()[0]['input']!r}"
    stop = "" if message.endswith((".", "?")) else "."
    return _fail(f"{message}{stop} See '{command} --help'.", mistake.exit_code)


def _fail(message: str, exit_code: int) -> int:
    # One line, whatever a file name or a library's message held.
    note(f"error: {' '.join(message.split())}")
    return exit_code
