"""`urzoo push`, `pull`, `export` and `card`: the way to and from the Hugging Face Hub."""

import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from urzoo.cli.output import note, print_json, warn
from urzoo.errors import UsageError

if TYPE_CHECKING:
    from urzoo.evaluation import Result
    from urzoo.hub.names import Located
    from urzoo.hub.plan import PushPlan

RESULTS = Path("leaderboard/results")

Checkpoint = Annotated[
    str, typer.Argument(help="A name of `urzoo list`, a checkpoint folder, or OWNER/NAME[@REVISION] on the Hub.")
]
WithCode = Annotated[
    bool, typer.Option("--with-code", help="With the code, so that it loads without urzoo (trust_remote_code).")
]
AsJson = Annotated[bool, typer.Option("--json", help="What was done as JSON, for scripts.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the command line."""
    for command in (push, pull, export, card):
        app.command()(command)


def push(
    checkpoint: Checkpoint,
    repo: Annotated[str, typer.Argument(help="The repository, OWNER/NAME; made if it does not exist.")],
    *,
    private: Annotated[bool, typer.Option("--private", help="Make a private repository, or insist on one.")] = False,
    with_code: WithCode = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be sent; send nothing.")] = False,
    revision: Annotated[str, typer.Option(help="The branch; made if it does not exist.")] = "main",
    create_pr: Annotated[bool, typer.Option("--create-pr", help="Propose the commit as a pull request.")] = False,
    commit_message: Annotated[str | None, typer.Option(metavar="TEXT", help="What the commit says.")] = None,
    tag: Annotated[str | None, typer.Option(help="The commit's tag; one made of the content when omitted.")] = None,
    licence: Annotated[
        str | None, typer.Option("--license", metavar="ID", help="The card's licence, by the Hub's name: apache-2.0.")
    ] = None,
    delete: Annotated[
        bool, typer.Option("--delete", help="Delete files of a checkpoint that the branch has and this one has not.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Also in place of another kind of model, or of a card edited on the Hub.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Send a checkpoint to the Hub as one atomic commit with a tag.

    The access token is the one of `hf auth login` or HF_TOKEN.

    Example:

        urzoo push urlstm-128-pmnist alice/urlstm-128-pmnist --private
    """
    from urzoo.hub.names import is_remote
    from urzoo.hub.push import push as send

    result = send(
        checkpoint if not is_remote(checkpoint) else _located(checkpoint).folder,
        repo,
        private=private or None,
        with_code=with_code,
        dry_run=dry_run,
        revision=revision,
        create_pr=create_pr,
        delete=delete,
        force=force,
        commit_message=commit_message,
        tag=tag,
        licence=licence,
        confirm=asker(yes=yes),
    )
    if dry_run:
        show_plan(result.plan)
    if as_json:
        print_json(asdict(result))
    elif result.sent:
        typer.echo(result.pull_request_url or result.commit_url)
    elif result.pull_request_url is not None:
        note(f"A pull request to {repo} proposes exactly this already; nothing was sent.")
        typer.echo(result.pull_request_url)
    elif result.plan.sends_nothing:
        typer.echo(f"{repo} already holds exactly this; nothing was sent.")
    else:
        typer.echo("Nothing was sent.")


def pull(
    repo: Annotated[
        str,
        typer.Argument(
            metavar="REPO[@REVISION]", help="OWNER/NAME or its page's address, with a branch, tag or commit."
        ),
    ],
    folder: Annotated[
        Path | None, typer.Argument(metavar="[DIR]", help="The folder to make; urzoo's store when omitted.")
    ] = None,
    *,
    with_code: WithCode = False,
    revision: Annotated[str | None, typer.Option(help="A branch, tag or commit, as after @.")] = None,
    include: Annotated[
        list[str] | None, typer.Option(metavar="GLOB", help="Only files of such names, into DIR; may be repeated.")
    ] = None,
    exclude: Annotated[
        list[str] | None, typer.Option(metavar="GLOB", help="No files of such names, into DIR; may be repeated.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Into a DIR that holds something: files of the same names are replaced.")
    ] = False,
    token: Annotated[str | None, typer.Option(help="An access token; that of HF_TOKEN when omitted.")] = None,
    as_json: AsJson = False,
) -> None:
    """Take a checkpoint from the Hub: pinned to a commit, safetensors only, every file checked by its hash.

    Example:

        urzoo pull alice/urlstm-128-pmnist@main my-checkpoint
    """
    from urzoo.hub.pull import pull as take
    from urzoo.hub.reference import parse_reference

    repo_id, named = parse_reference(repo)
    if named is not None and revision is not None and named != revision:
        raise UsageError(f"--revision {revision} and @{named} are two revisions; give one.")
    pulled = take(
        repo_id,
        named or revision,
        folder,
        with_code=with_code,
        include=include or (),
        exclude=exclude or (),
        force=force,
        token=token,
    )
    for warning in pulled.warnings:
        warn(warning)
    if as_json:
        print_json(asdict(pulled) | {"folder": str(pulled.folder)})
        return
    note(f"{pulled.repo_id} at commit {pulled.commit}")
    typer.echo(pulled.folder)


def export(
    checkpoint: Checkpoint,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder to make.")],
    *,
    with_code: WithCode = False,
    onnx: Annotated[bool, typer.Option("--onnx", help="With the model as model.onnx, for other runtimes.")] = False,
    dtype: Annotated[
        str | None, typer.Option(help="Store the weights' matrices in bfloat16 (half the size) or float32.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write a checkpoint to a folder of its own, complete or not at all.

    Example:

        urzoo export urlstm-128-pmnist my-checkpoint --with-code
    """
    from urzoo.hub.export import export as write

    exported = write(_located(checkpoint).folder, folder, with_code=with_code, onnx=onnx, dtype=dtype)
    if as_json:
        print_json(asdict(exported) | {"folder": str(exported.folder)})
    else:
        typer.echo(exported.folder)


def card(
    checkpoints: Annotated[
        list[str],
        typer.Argument(help="Names of `urzoo list`, folders, or OWNER/NAME[@REVISION] on the Hub."),
    ],
    *,
    check: Annotated[bool, typer.Option("--check", help="Write nothing; fail if a card is stale.")] = False,
    samples: Annotated[
        bool,
        typer.Option("--samples", help="First have a language model write after fixed prompts; the card shows it."),
    ] = False,
    results: Annotated[
        Path | None,
        typer.Option(file_okay=False, help="Folder of the result files; leaderboard/results when omitted."),
    ] = None,
) -> None:
    """Generate checkpoints' cards, and their results in the Hub's format, from configuration, recipe and results.

    What others wrote above or below the generated part of README.md stays. Of a checkpoint on the Hub it is printed.

    Example:

        urzoo card urlstm-128-pmnist --check
    """
    from urzoo.hub.card import render_card, render_files, write_files
    from urzoo.hub.samples import check_writes, make_samples

    if samples and check:
        raise UsageError("--samples writes into a folder; leave it out with --check.")
    # All are looked up, and rendered, before one is written: what is refused leaves nothing half written.
    jobs = [(one, _own_results(one, results)) for one in map(_located, checkpoints)]
    if check:
        _check_cards(jobs)
        return
    if samples:
        if remote := next((one.name for one, _ in jobs if one.commit is not None), None):
            raise UsageError(f"--samples writes into a folder; leave it out of {remote}, a checkpoint on the Hub.")
        for one, _ in jobs:
            check_writes(one.folder)
    rendered: list[str | dict[str, str]] = [
        render_card(one.folder, found, repo_id=one.name)
        if one.commit is not None
        else render_files(one.folder, found, make_samples(one.folder) if samples else None)
        for one, found in jobs
    ]
    for (one, _), made in zip(jobs, rendered, strict=True):
        # The kept copy of one on the Hub is that of the commit, and stays so.
        if isinstance(made, str):
            typer.echo(made, nl=False)
        else:
            typer.echo(write_files(one.folder, made))


def _check_cards(jobs: list[tuple["Located", list["Result"]]]) -> None:
    from urzoo.errors import StaleError
    from urzoo.hub.card import check_card

    stale = []
    for one, found in jobs:
        try:
            check_card(one.folder, found)
            typer.echo(f"The card of {one.name} is up to date.")
        except StaleError as error:
            stale.append(str(error))
    if stale:
        raise StaleError("\n".join(stale))


def _own_results(located: "Located", results: Path | None) -> list["Result"]:
    """The results of a checkpoint, by whatever name; a reader could not repeat those on data that are only here."""
    from urzoo.evaluation import read_result, result_name
    from urzoo.evaluation.schema import folder_name
    from urzoo.hub.card import has_results
    from urzoo.hub.eval_results import generated_files
    from urzoo.hub.names import described

    committed, checkpoint = RESULTS if results is None else results, described(located)
    shown = located.commit is None and has_results(located.folder)
    if not committed.is_dir() and (results is not None or shown or generated_files(located.folder)):
        raise UsageError(f"there is no folder {str(committed)!r} with result files; name it with --results.")

    def under(pattern: str) -> list["Result"]:
        return [one for file in sorted(committed.glob(pattern)) if (one := read_result(file)).data.source != "local"]

    found = under(f"{folder_name(result_name(checkpoint))}/*.json")
    if not found:
        # A copy of it may have been measured, in another folder or from the Hub.
        same = (one for one in under("*/*.json") if one.model.checkpoint_sha256 == checkpoint.checkpoint_sha256)
        found = list({one.task.name: one for one in same}.values())
    if not found and shown:
        raise UsageError(
            f"{committed} holds no result of {located.name}, whose card shows some; name their folder with --results, "
            "or remove the card first."
        )
    return found


def _located(checkpoint: str) -> "Located":
    from urzoo.hub.names import locate

    return locate(checkpoint, warn=warn)


def asker(*, yes: bool) -> "Callable[[PushPlan], bool]":
    """What shows a plan and asks whether to go on; with `yes` it only shows."""

    def confirm(plan: "PushPlan") -> bool:
        show_plan(plan)
        if yes:
            return True
        if not sys.stdin.isatty():
            raise UsageError("there is no terminal to ask on, so nothing was sent; add --yes to send without asking.")
        return typer.confirm("Send this?", err=True)

    return confirm


def show_plan(plan: "PushPlan") -> None:
    """What a push is about to do, on standard error: standard output carries the answer."""
    visible = "private" if plan.private else "public"
    made = "a new" if plan.creates_repository else "the"
    kind = {"model": "repository", "dataset": "data set", "space": "Space"}[plan.kind]
    where = f"{made} {visible} {kind} {plan.repo_id} at {plan.endpoint}"
    if plan.create_pr:
        note(f"A pull request to branch {plan.revision} of {where}:")
    else:
        note(f"One commit to {'new ' if plan.creates_branch else ''}branch {plan.revision} of {where}:")
    for file in plan.files:
        note(f"  {file.change:<8} {file.size_bytes:>12,} bytes  {file.path}")
    for path in plan.deletions:
        note(f"  deleted  {'':>12}        {path}")
    for path in plan.kept:
        note(f"  stays there, not in this checkpoint; --delete removes it: {path}")
    for path in plan.left_out:
        note(f"  stays here, no part of a checkpoint: {path}")
    if plan.tag is not None:
        note(f"  tag {plan.tag}{' (exists)' if plan.tag_exists else ''}")
    for line in plan.notes:
        warn(line)
    note(f"{plan.bytes_to_send:,} bytes to send.")
