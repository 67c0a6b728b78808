"""What `urzoo leaderboard` does with the Hub: publishing a board, and building one from what was published."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import typer

from urzoo.cli.hub import asker, show_plan
from urzoo.cli.output import note
from urzoo.errors import ResultError

if TYPE_CHECKING:
    from urzoo.hub.plan import PushResult

MARK = "leaderboard.json"


def publish(repo_id: str, out: Path, *, private: bool, dry_run: bool, yes: bool) -> None:
    """Send the board of `out` as a data set of results, then as a static Space, one commit each."""
    from urzoo.hub.tree import push_files
    from urzoo.leaderboard.publish import is_published, published_files

    space, data_set = published_files(repo_id, out)
    parts: tuple[tuple[Literal["dataset", "space"], dict[str, bytes]], ...] = (("dataset", data_set), ("space", space))

    def send(kind: Literal["dataset", "space"], files: dict[str, bytes], *, dry_run: bool) -> "PushResult":
        return push_files(
            files,
            repo_id,
            kind,
            mark=MARK,
            is_owned=is_published,
            message="Publish the leaderboard",
            private=private or None,
            dry_run=dry_run,
            confirm=asker(yes=yes),
        )

    # Both are planned before one is sent: a repository that holds something else is refused while nothing has changed.
    planned = [send(kind, files, dry_run=True) for kind, files in parts]
    for (kind, files), plan in zip(parts, planned, strict=True):
        if dry_run:
            show_plan(plan.plan)
        result = plan if dry_run else send(kind, files, dry_run=False)
        if result.sent:
            typer.echo(result.commit_url)
        elif result.plan.sends_nothing:
            typer.echo(f"{result.plan.address} already holds exactly this; nothing was sent.")
        else:
            typer.echo("Nothing was sent.")
            if not dry_run:
                return


def build_from(reference: str, out: Path) -> None:
    """Build a board in a new folder from a published data set of results."""
    from urzoo.files import check_empty, new_folder, write_bytes
    from urzoo.hub.reference import parse_reference
    from urzoo.hub.tree import fetch_files
    from urzoo.leaderboard.build import build
    from urzoo.leaderboard.publish import LARGEST_SOURCE_BYTES, MOST_SOURCES, RESULTS, is_source

    repo_id, revision = parse_reference(reference, "dataset")
    check_empty(out)
    fetched = fetch_files(
        repo_id,
        revision,
        "dataset",
        is_wanted=is_source,
        largest_bytes=LARGEST_SOURCE_BYTES,
        most_files=MOST_SOURCES,
    )
    note(f"{repo_id} at commit {fetched.commit}")
    with new_folder(out) as folder:
        for path, content in fetched.files.items():
            write_bytes(folder / path, content)
        try:
            built = build(folder / RESULTS, folder)
        except ResultError as error:
            raise ResultError(f"{repo_id}: {str(error).replace(f'{folder}/', '')}") from None
        names = [path.relative_to(folder) for path in built.files]
    for name in names:
        typer.echo(out / name)
