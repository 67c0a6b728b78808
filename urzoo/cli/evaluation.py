"""`urzoo eval`, `reproduce`, `compare` and `leaderboard`: figures, and the board made of them."""

from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from urzoo.cli.named import name_in_results, named_folder, subjects
from urzoo.cli.output import asked_job, complete_checkpoint, complete_task, note, print_json, speaks
from urzoo.errors import UsageError

if TYPE_CHECKING:
    from urzoo.evaluation import Pair
    from urzoo.evaluation.repetition import Repetition

RESULTS = Path("leaderboard/results")
BOARD = Path("leaderboard")
README = Path("README.md")

DataRoot = Annotated[
    Path | None,
    typer.Option(
        exists=True, file_okay=False, help="Folder with data sets in the Hub's layout; URZOO_DATA_ROOT when omitted."
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the command line."""
    app.command("eval")(evaluate)
    app.command("reproduce")(reproduce)
    app.command("compare")(compare)
    app.command("leaderboard")(leaderboard)


def evaluate(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            help="Checkpoints by name (`urzoo list`), folder, or OWNER/NAME[@REVISION] on the Hub.",
            autocompletion=complete_checkpoint,
        ),
    ] = None,
    *,
    task: Annotated[
        list[str] | None,
        typer.Option(
            help="A task of `urzoo info`, or the YAML file of your own; may be repeated. Those a model was made for if "
            "omitted.",
            autocompletion=complete_task,
        ),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Every checkpoint, the study's too, on every task whose data are at hand.")
    ] = False,
    data_root: DataRoot = None,
    results: Annotated[Path, typer.Option(file_okay=False, help="Folder of the result files.")] = RESULTS,
    overwrite: Annotated[
        str, typer.Option(help="What to do about an earlier result: never, stale or always replace it.")
    ] = "stale",
    batch_size: Annotated[int | None, typer.Option(help="Rows at a time; it does not change the figures.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda or cuda:NUMBER; a GPU when there is one.")] = None,
    dtype: Annotated[str, typer.Option(help="float32, float64, bfloat16 or float16.")] = "float32",
    backend: Annotated[str | None, typer.Option(help="Back end of the recurrence; see `urzoo info`.")] = None,
    limit: Annotated[int | None, typer.Option(help="Only the first rows; the result is partial, never ranked.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of torch's generators.")] = 0,
    save_predictions: Annotated[
        bool, typer.Option("--save-predictions", help="Keep what the model says of every row, as parquet.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The results as JSON, for scripts.")] = False,
) -> None:
    """Evaluate checkpoints on tasks and keep one result file each; what is current is not computed again.

    A pair that fails is told in a line and keeps no other from being evaluated; the exit code is then not 0. An unknown
    name is refused before anything is evaluated.
    Interrupted, the same command goes on where it stopped. On several GPUs or machines start it through
    accelerate: accelerate launch -m urzoo eval MODEL --task TASK

    Example:

        urzoo eval urlstm-128-pmnist --task pmnist

        urzoo eval runs/digits/checkpoint --task ./digits.yaml
    """
    if everything and models:
        raise UsageError(f"--all takes every checkpoint; give it or {models[0]!r}, not both.")
    if not everything and not models:
        raise UsageError("no checkpoint is named; give names of `urzoo list`, folders, or --all.")

    from urzoo.evaluation import Settings, evaluate_pairs

    first = speaks()  # for all, except of what failed
    settings = Settings(batch_size, device, dtype, backend, limit, seed)  # type: ignore[arg-type] # it checks dtype
    done: list[dict[str, Any]] = []
    codes: list[int] = []
    found, broken = subjects(models or ())
    pairs = evaluate_pairs(
        None if everything else found,
        task,
        results=results,
        data_root=data_root,
        settings=settings,
        overwrite=overwrite,
        save_predictions=save_predictions,
    )
    for pair in chain(broken, pairs):
        if _is_failure(pair, asked=not everything):
            codes.append(1 if pair.error is None else pair.error.exit_code)
        if pair.result is not None:
            done.append(pair.result.model_dump(mode="json"))
        if not first and pair.status != "failed":
            continue
        if pair.status == "failed":
            note(f"error: {' '.join(pair.message.split())}")
        elif as_json or pair.status == "lacking":
            note(pair.message)
        else:
            typer.echo(pair.message)
    if as_json and first:
        print_json(done)
    elif done and first:
        note(f"The results are in {results}.")
    if not done and not codes and not everything:
        raise UsageError(f"no task is made for {' or '.join(models or ())}; name one with --task.")
    # An error that is no typing mistake decides the exit code.
    raise typer.Exit(min(codes, default=0))


def reproduce(
    *,
    task: Annotated[list[str] | None, typer.Option(help="A task; may be given several times. All if omitted.")] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Every checkpoint, the study's too, on all rows, however long that takes.")
    ] = False,
    data_root: DataRoot = None,
    results: Annotated[Path, typer.Option(file_okay=False, help="Folder of the committed result files.")] = RESULTS,
    out: Annotated[
        Path,
        typer.Option(
            file_okay=False, help="Folder of the board; what this machine measures is kept in its folder measured/."
        ),
    ] = BOARD,
) -> None:
    """Measure the recommended checkpoints here, compare with the committed results, and regenerate the board.

    Of a long split some rows are compared one by one with what is committed of them; that takes a minute or two. What
    was measured before is not measured again. Exit code 1 if a figure differs by more than its task's tolerance.

    Example:

        urzoo reproduce --task smnist
    """
    from urzoo.evaluation.reproduction import reproduce as reproduced

    _need(results)
    failures = 0
    left_out: dict[str, list[str]] = {}
    for row in reproduced(task, everything=everything, results=results, measured=out / "measured", data_root=data_root):
        if row.status == "lacking":
            left_out.setdefault(row.message, []).append(row.task)
        else:
            (note if row.is_failure else typer.echo)(f"error: {row.message}" if row.is_failure else row.message)
        failures += row.is_failure
    if left_out:
        note("Not measured, because the data are not here:")
        for message, of_tasks in left_out.items():
            note(f"  {', '.join(of_tasks)}: {message}")
    _build(results, out, None)
    typer.echo(f"The board is in {out / 'index.html'}.")
    raise typer.Exit(1 if failures else 0)


def compare(
    first: Annotated[
        str, typer.Argument(metavar="A", help="A model: a name as results have it, or OWNER/NAME[@REVISION].")
    ],
    second: Annotated[str, typer.Argument(metavar="B", help="Another's.")],
    *,
    task: Annotated[str, typer.Option(help="The task both were evaluated on, or the YAML file of your own.")],
    results: Annotated[Path, typer.Option(file_okay=False, help="Folder of the result files.")] = RESULTS,
    rows: Annotated[int, typer.Option(min=0, help="How many of the rows on which they differ are listed.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="The comparison as JSON, for scripts.")] = False,
) -> None:
    """Compare two models row by row, by a paired test; both evaluated with --save-predictions.

    Example:

        urzoo compare urlstm-128-pmnist my-model --task pmnist
    """
    from urzoo.evaluation import load_task
    from urzoo.evaluation.comparison import compare as compared

    load_task(task)
    _need(results)
    found = compared(results, name_in_results(first), name_in_results(second), task)
    if as_json:
        print_json(asdict(found) | {"difference": found.difference and found.difference.model_dump()})
        return
    metric = load_task(task).primary_metric
    scale, digits = metric.scale, metric.digits
    typer.echo(f"{task}: {metric.title} on the same {found.rows} rows")
    for name, figure in zip(found.models, found.figures, strict=True):
        typer.echo(f"  {name}: {figure * scale:.{digits}f} {metric.unit}")
    difference = f"{(found.figures[1] - found.figures[0]) * scale:+.{digits}f} {metric.unit}"
    if found.difference is not None:
        low, high = found.difference.low * scale, found.difference.high * scale
        difference += f" [{low:+.{digits}f}, {high:+.{digits}f}]"
    typer.echo(f"  difference: {difference}")
    typer.echo(f"  p = {found.p_value:.3g} ({found.test})")
    if found.only_first_right is not None:
        typer.echo(f"  right alone: {found.only_first_right} and {found.only_second_right} rows")
    if rows and found.differing:
        more = len(found.differing) - rows
        listed = ", ".join(str(row) for row in found.differing[:rows])
        typer.echo(f"  rows that differ: {listed}" + (f" and {more} more: --rows" if more > 0 else ""))


_BOARD_JOBS = {
    "": {"--results", "--out", "--readme"},
    "--check": {"--results", "--out", "--readme"},
    "--verify": {"--results", "--checkpoint", "--data-root", "--seed"},
    "--submission": {"--checkpoint", "--samples", "--data-root", "--seed"},
    "--publish": {"--results", "--out", "--private", "--dry-run", "--yes"},
    "--from": {"--out"},
}


def leaderboard(
    context: typer.Context,
    *,
    check: Annotated[bool, typer.Option("--check", help="Write nothing; fail if the board is stale.")] = False,
    verify: Annotated[
        int | None, typer.Option(help="Evaluate so many rows again, picked at random; fail if one differs.")
    ] = None,
    submission: Annotated[
        Path | None,
        typer.Option(
            exists=True, dir_okay=False, help="Check a result file that was sent in, against its --checkpoint."
        ),
    ] = None,
    checkpoint: Annotated[
        list[str] | None,
        typer.Option(
            help="The submission's checkpoint, or with --verify one that is not shipped: name, folder or OWNER/NAME."
        ),
    ] = None,
    samples: Annotated[
        int | None, typer.Option(help="With --submission: repeat only so many rows, drawn at random.")
    ] = None,
    results: Annotated[Path, typer.Option(file_okay=False, help="Folder of the result files.")] = RESULTS,
    out: Annotated[Path, typer.Option(file_okay=False, help="Folder of the board.")] = BOARD,
    readme: Annotated[
        Path | None,
        typer.Option(
            exists=True, dir_okay=False, help="README to show the board's head in; README.md here if it has the marks."
        ),
    ] = None,
    data_root: DataRoot = None,
    seed: Annotated[int, typer.Option(help="Seed of the choice of rows for --verify and --samples.")] = 0,
    publish: Annotated[
        str | None,
        typer.Option(
            metavar="OWNER/NAME", help="Send the board to the Hub: a static Space, and its results as data set."
        ),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option("--from", metavar="OWNER/NAME[@REVISION]", help="Build it from such a data set; --out is made."),
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="With --publish: private repositories.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="With --publish: show the plan, send nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="With --publish: do not ask.")] = False,
) -> None:
    """Regenerate the board from the result files: Markdown, CSV, JSON, a page, plots and a report.

    Example:

        urzoo leaderboard --check

        urzoo leaderboard --submission my-model/smnist.json --checkpoint my-model --samples 1000

        urzoo leaderboard --publish alice/leaderboard --dry-run
    """
    from urzoo.cli import board

    asked_job(context, _BOARD_JOBS)
    if publish is not None:
        sent = out / "results"
        if results not in (RESULTS, sent) or not sent.is_dir():
            raise UsageError(
                f"--publish sends the results in {str(sent)!r}, which "
                + (f"--results {results} is not" if sent.is_dir() else "is not there")
                + f"; put the result files there and type urzoo leaderboard --results {sent} --out {out} first."
            )
        board.publish(publish, out, private=private, dry_run=dry_run, yes=yes)
        return
    if source is not None:
        if out == BOARD:
            raise UsageError(f"--from {source} makes a new folder; name it: --out DIR")
        board.build_from(source, out)
        return
    if submission is not None:
        _check_submission(submission, checkpoint or [], samples=samples, seed=seed, data_root=data_root)
        return
    _need(results)
    if verify is not None:
        _verify(results, verify, checkpoint or [], seed=seed, data_root=data_root)
        return
    if check:
        from urzoo.leaderboard import build

        build.check(results, out, readme=readme or _own_readme(out))
        typer.echo("The board is up to date.")
        return
    for path in _build(results, out, readme):
        typer.echo(path)


def _need(results: Path) -> None:
    if not results.is_dir():
        raise UsageError(
            f"there is no folder {str(results)!r} with result files; run this in a clone, or name it with --results."
        )


def _build(results: Path, out: Path, readme: Path | None) -> tuple[Path, ...]:
    from urzoo.leaderboard.build import build

    built = build(results, out, readme=readme or _own_readme(out))
    for name, reason in built.left_out.items():
        note(f"left out, because it is {reason}: {name}")
    return built.files


def _own_readme(out: Path) -> Path | None:
    """The README here, if it shows the head of the board that is in `out`."""
    from urzoo.leaderboard.readme import BEGIN

    return README if out == BOARD and README.is_file() and BEGIN in README.read_text("utf-8") else None


def _check_submission(
    file: Path, checkpoints: list[str], *, samples: int | None, seed: int, data_root: Path | None
) -> None:
    if len(checkpoints) != 1:
        raise UsageError(f"--submission {file} needs one --checkpoint: the model that the file is about.")
    from urzoo.leaderboard.verify import check_submission

    for one in check_submission(file, named_folder(checkpoints[0])[1], samples=samples, seed=seed, data_root=data_root):
        _tell(one)
    typer.echo(f"{file} is fit for the board.")


def _verify(results: Path, count: int, checkpoints: list[str], *, seed: int, data_root: Path | None) -> None:
    from urzoo.leaderboard.verify import verify

    folders = dict(named_folder(one) for one in checkpoints)
    verification = verify(results, count, seed=seed, data_root=data_root, folders=folders)
    for reason in verification.unrepeatable:
        note(f"not repeated: {reason}")
    for compared in verification.compared:
        _tell(compared)


def _tell(one: "Repetition") -> None:
    typer.echo(f"{one.model} on {one.task}: {one.metric.name} {one.stored:.6g} in the result, {one.measured:.6g} here")


def _is_failure(pair: "Pair", *, asked: bool) -> bool:
    """Data that are not at hand are news with --all, and a failure where the task was asked for."""
    return pair.status == "failed" or (pair.status == "lacking" and asked)
