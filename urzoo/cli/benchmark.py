"""`urzoo bench`: the recurrence against its peers and the machine's limit."""

from pathlib import Path
from typing import Annotated

import typer

from urzoo.cli.output import note


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the command line."""
    app.command("bench")(bench)


def bench(
    *,
    shape: Annotated[
        list[str] | None, typer.Option(help="h128, h256, h512, lm512, lm1024, or sizes such as b64t784i1h128.")
    ] = None,
    contender: Annotated[
        list[str] | None, typer.Option(help="What is timed; all that fit the device when omitted.")
    ] = None,
    figure: Annotated[list[str] | None, typer.Option(help="What is measured; everything when omitted.")] = None,
    gate: Annotated[str, typer.Option(help="The gating of urzoo's layers, the paper's two letters.")] = "UR",
    cell: Annotated[str, typer.Option(help="lstm or gru.")] = "lstm",
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    threads: Annotated[int | None, typer.Option(help="Threads of torch; as many as it has when omitted.")] = None,
    seconds: Annotated[float | None, typer.Option(help="Time for the timing in all; 300 when omitted.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer shapes and figures, 20 seconds.")] = False,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the CSV, the plot and their page, such as leaderboard/benchmarks.")
    ] = None,
) -> None:
    """Time the recurrence against torch.nn.LSTM, ur-lstm-torch, the eager reference and the limit, interleaved.

    Ratios are taken within each round, so that they hold on a noisy machine.

    Example:

        urzoo bench --quick
    """
    from rich.console import Console

    from urzoo.benchmark.report import write_report, write_summary
    from urzoo.benchmark.run import run_benchmark
    from urzoo.benchmark.tables import table
    from urzoo.recurrence import Gating

    report = run_benchmark(
        shapes=shape,
        contenders=contender,
        figures=figure,
        gating=Gating(gate, cell),
        device=device,
        threads=threads,
        seconds=seconds,
        quick=quick,
        progress=note,
    )
    Console().print(table(report))
    if out is not None:
        for path in [*write_report(report, out, suffix="quick" if quick else ""), write_summary(out)]:
            typer.echo(path)
