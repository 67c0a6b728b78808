"""Writing the board's files, and checking that they are what their sources give.

Everything is rendered in memory and staged beside its place before the first file is replaced: a
result that is refused, a full disk or a kill leaves the old board whole. Nothing here looks at a clock.
"""

from collections.abc import Container, Sequence
from dataclasses import dataclass
from pathlib import Path

from urzoo.errors import StaleError
from urzoo.evaluation.recommended import recommended_checkpoints
from urzoo.files import write_files
from urzoo.leaderboard.board import assemble
from urzoo.leaderboard.charts import KINDS, Chart, charts
from urzoo.leaderboard.collect import backgrounds, collect, current_tasks
from urzoo.leaderboard.curves import learning_curves
from urzoo.leaderboard.page import render_page
from urzoo.leaderboard.problem_curves import CURVES, problem_curves
from urzoo.leaderboard.published import read_published
from urzoo.leaderboard.readme import embedded_board, update_readme
from urzoo.leaderboard.report import REMARKS, REPORT, render_report
from urzoo.leaderboard.schema import Board
from urzoo.leaderboard.svg import render_picture
from urzoo.leaderboard.tables import REGENERATE, render_csv, render_json, render_markdown
from urzoo.zoo.lookup import CHECKPOINTS_FOLDER, STUDY_FOLDER


@dataclass(frozen=True)
class Built:
    """What a build did: the board, the files it holds, and by result file what keeps one off it."""

    board: Board
    files: tuple[Path, ...]
    left_out: dict[str, str]


def make_board(results: Path, out: Path, *, checkpoints: Path = CHECKPOINTS_FOLDER) -> tuple[Board, dict[str, str]]:
    """The board of the result files under `results`, and by file what keeps a result off it.

    Args:
        results: The folder of result files.
        out: The board's folder, for the links from rows to result files inside it.

    Raises:
        ResultError: A result file cannot be read or must not be on a board.
    """
    collected = collect(results, out)
    tasks, folders = current_tasks(), _folders(out, checkpoints)
    board = assemble(
        collected.evidence,
        read_published(),
        tasks,
        learning_curves(collected.evidence, tasks, folders),
        problem_curves(out / CURVES, tasks),
        recommended_checkpoints(),
        backgrounds(collected.evidence, folders),
    )
    return board, collected.left_out


def render(board: Board, drawn: Sequence[Chart], out: Path, checkpoints: Path) -> dict[str, bytes]:
    """Every file of the board, by path from its folder; always the same bytes for the same board.

    `out` is the board's folder, where remarks for the report and the study may lie, `checkpoints` that of the shipped
    checkpoints.
    """
    pictures = _by_kind(drawn)
    texts = {
        "README.md": render_markdown(board, [(_picture(kind), KINDS[kind]) for kind in pictures]),
        "leaderboard.csv": render_csv(board),
        "leaderboard.json": render_json(board),
        "index.html": render_page(board, drawn),
        REPORT: render_report(board, remarks=out / REMARKS, folders=_folders(out, checkpoints).values()),
        **{_picture(kind): render_picture(shown) for kind, shown in pictures.items()},
    }
    return {name: text.encode("utf-8") for name, text in texts.items()}


def build(results: Path, out: Path, *, readme: Path | None = None, checkpoints: Path = CHECKPOINTS_FOLDER) -> Built:
    """Regenerate the board in `out` from the result files under `results`.

    Args:
        results: The folder of result files.
        out: The board's folder.
        readme: A README that shows the board's head between its marks; left alone when omitted.
        checkpoints: Where the shipped checkpoints are, for their learning curves.

    Raises:
        ResultError: A result file cannot be read or must not be on a board; nothing is written.
        UrzooError: `out` cannot be written to, or `readme` lacks the marks; nothing is changed.
    """
    board, left_out = make_board(results, out, checkpoints=checkpoints)
    files = render(board, charts(board), out, checkpoints)
    if readme is not None:
        embedded_board(readme, board, out)
    write_files(out, files)
    for path in _leftover_pictures(files, out):
        path.unlink(missing_ok=True)  # another build may have been faster
    if readme is not None:
        update_readme(readme, board, out)
    return Built(board, tuple(out / name for name in sorted(files)), left_out)


def check(results: Path, out: Path, *, readme: Path | None = None, checkpoints: Path = CHECKPOINTS_FOLDER) -> None:
    """Make sure that the board in `out`, and its head in `readme`, are what the result files give.

    Raises:
        StaleError: A file is missing, out of date or left over; the message lists all such files.
        ResultError: A result file cannot be read or must not be on a board.
    """
    board, _ = make_board(results, out, checkpoints=checkpoints)
    files = render(board, charts(board), out, checkpoints)
    stale = [name for name, content in files.items() if _content(out / name) != content]
    stale += [path.relative_to(out).as_posix() for path in _leftover_pictures(files, out)]
    paths = [str(out / name) for name in sorted(stale)]
    if readme is not None and embedded_board(readme, board, out) is not None:
        paths.append(str(readme))
    if paths:
        names = ", ".join(paths)
        raise StaleError(f"out of date: {names}. Type: {REGENERATE}")


def _folders(out: Path, checkpoints: Path) -> dict[str, Path]:
    """Where checkpoints with a training log are, by what results call their source."""
    return {"shipped": checkpoints, "study": out / STUDY_FOLDER.name}


def _by_kind(drawn: Sequence[Chart]) -> dict[str, list[Chart]]:
    """The charts of each kind for which there are any."""
    return {kind: shown for kind in KINDS if (shown := [chart for chart in drawn if chart.kind == kind])}


def _picture(kind: str) -> str:
    return f"plots/{kind}.svg"


def _leftover_pictures(files: Container[str], out: Path) -> list[Path]:
    """Pictures of an earlier board that this one does not have."""
    found = sorted((out / "plots").glob("*.svg"))
    return [path for path in found if path.relative_to(out).as_posix() not in files]


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None
