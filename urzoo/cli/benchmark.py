"""`urzoo bench`: the recurrence against its peers and the machine's limit."""

from pathlib import Path
from typing import Annotated

import typer

from urzoo.cli.output import asked_job, note
from urzoo.errors import UsageError

FOLDER = Path("leaderboard/benchmarks")
README = Path("README.md")
MOST_THREADS = 256


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the command line."""
    app.command("bench")(bench)


def bench(
    context: typer.Context,
    *,
    shape: Annotated[
        list[str] | None, typer.Option(help="h128, h256, h512, lm512, lm1024, or sizes such as b64t784i1h128.")
    ] = None,
    contender: Annotated[
        list[str] | None, typer.Option(help="What is timed; all that fit the device when omitted.")
    ] = None,
    figure: Annotated[list[str] | None, typer.Option(help="What is measured; everything when omitted.")] = None,
    gate: Annotated[
        str | None, typer.Option(help="The gating of urzoo's layers, the paper's two letters; its method when omitted.")
    ] = None,
    cell: Annotated[str, typer.Option(help="lstm or gru.")] = "lstm",
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    threads: Annotated[
        str | None, typer.Option(help="Threads of torch, or numbers such as 1,2,4, each in turn; all when omitted.")
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option(help="Time for all of it, with several numbers of threads for each; 600 when omitted."),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer shapes and figures, 20 seconds.")] = False,
    untied: Annotated[bool, typer.Option("--untied", help="An input gate of its own, as torch.nn.LSTM has.")] = False,
    out: Annotated[Path, typer.Option(file_okay=False, help="Folder for the CSV, the plot and their page.")] = FOLDER,
    summary: Annotated[
        bool, typer.Option("--summary", help="Time nothing; make the page again from the CSV files in the folder.")
    ] = False,
    check: Annotated[bool, typer.Option("--check", help="Time and write nothing; fail if the page is stale.")] = False,
) -> None:
    """Time the recurrence against torch.nn.LSTM, ur-lstm-torch, onnxruntime, the reference and the limit, interleaved.

    Ratios are taken within each round, so that they hold on a noisy machine.

    Example:

        urzoo bench --quick
    """
    options = {name for option in context.command.params for name in option.opts}
    asked_job(context, {"": options, "--summary": {"--out"}, "--check": {"--out"}})

    from rich.console import Console

    from urzoo.benchmark.readme import BEGIN
    from urzoo.benchmark.report import check_summary, write_report, write_summary

    # A run kept elsewhere is no figure of this project.
    readme = README if out == FOLDER and README.is_file() and BEGIN in README.read_text("utf-8") else None
    if (check or summary) and not out.is_dir():
        raise UsageError(f"there is no folder {str(out)!r} with CSV files; run this in a clone, or name it with --out.")
    if check:
        check_summary(out, readme=readme)
        typer.echo("The page of benchmarks is up to date.")
        return
    if summary:
        typer.echo(write_summary(out, readme=readme))
        return

    from urzoo.benchmark.run import run_benchmark
    from urzoo.benchmark.tables import scaling, table
    from urzoo.recurrence.gates import SUBJECT, Gating

    reports = []
    for count in _counts(threads):
        report = run_benchmark(
            shapes=shape,
            contenders=contender,
            figures=figure,
            gating=Gating(gate or SUBJECT, cell, tie_input_gate=not untied),
            device=device,
            threads=count,
            seconds=seconds,
            quick=quick,
            progress=note,
        )
        Console().print(table(report))
        for path in write_report(report, out, suffix="quick" if quick else ""):
            typer.echo(path)
        reports.append(report)
    if len(reports) > 1:
        Console().print(scaling(reports))
    typer.echo(write_summary(out, readme=readme))


def _counts(threads: str | None) -> list[int | None]:
    """The numbers of threads that are asked for; [None] for what torch has."""
    if threads is None:
        return [None]
    parts = threads.split(",")
    if not all(part.isascii() and part.isdigit() and 0 < int(part) <= MOST_THREADS for part in parts):
        raise UsageError(
            f"threads is {threads!r}, expected a number from 1 to {MOST_THREADS}, or several with commas: "
            "--threads 1,2,4"
        )
    return [int(part) for part in dict.fromkeys(parts)]
