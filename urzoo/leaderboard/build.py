"""Writing the board's files, and checking that they are what their sources give.

Everything is rendered in memory and staged beside its place before the first file is replaced: a
result that is refused, a full disk or a kill leaves the old board whole. Nothing here looks at a clock.
"""

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from urzoo.errors import StaleError, UrzooError
from urzoo.files import write_bytes
from urzoo.leaderboard.board import Board, assemble
from urzoo.leaderboard.charts import KINDS, charts
from urzoo.leaderboard.collect import collect, current_tasks
from urzoo.leaderboard.curves import CHECKPOINTS_FOLDER, shipped_curves
from urzoo.leaderboard.page import render_page
from urzoo.leaderboard.png import drawn_from, render_png, source_digest
from urzoo.leaderboard.published import read_published
from urzoo.leaderboard.tables import REGENERATE, render_csv, render_json, render_markdown

PLOTS = "plots"


@dataclass(frozen=True)
class Built:
    """What a build did: the board, the files it holds and the results that are partial and stay off it."""

    board: Board
    files: tuple[Path, ...]
    partial: tuple[str, ...]


def make_board(results: Path, out: Path, *, checkpoints: Path = CHECKPOINTS_FOLDER) -> tuple[Board, tuple[str, ...]]:
    """The board of the result files under `results`, and the names of those that are partial.

    Args:
        results: The folder of result files.
        out: The board's folder, for the links from rows to result files inside it.

    Raises:
        ResultError: A result file cannot be read or must not be on a board.
    """
    collected = collect(results, out)
    tasks = current_tasks()
    board = assemble(
        collected.evidence, read_published(), tasks, shipped_curves(collected.evidence, tasks, checkpoints)
    )
    return board, collected.partial


def render(board: Board) -> dict[str, bytes]:
    """Every file of the board but the pictures, by path from its folder; always the same bytes for the same board."""
    plots = [(f"{PLOTS}/{kind}.png", KINDS[kind]) for kind in _drawn(board)]
    texts = {
        "README.md": render_markdown(board, plots),
        "leaderboard.csv": render_csv(board),
        "leaderboard.json": render_json(board),
        "index.html": render_page(board),
    }
    return {name: text.encode("utf-8") for name, text in texts.items()}


def build(results: Path, out: Path, *, checkpoints: Path = CHECKPOINTS_FOLDER) -> Built:
    """Regenerate the board in `out` from the result files under `results`.

    A picture is drawn anew only if what it shows has changed, because another build of matplotlib draws
    the same picture with other bytes.

    Raises:
        ResultError: A result file cannot be read or must not be on a board; nothing is written.
        UrzooError: `out` cannot be written to; nothing is changed.
    """
    board, partial = make_board(results, out, checkpoints=checkpoints)
    files = render(board)
    for kind in _drawn(board):
        path = out / PLOTS / f"{kind}.png"
        if drawn_from(path) != source_digest(board, kind):
            files[f"{PLOTS}/{kind}.png"] = render_png(board, kind)
    _replace_all(out, files)
    for path in _leftover_plots(board, out):
        path.unlink()
    drawn = [f"{PLOTS}/{kind}.png" for kind in _drawn(board)]
    return Built(board, tuple(out / name for name in sorted({*files, *drawn})), partial)


def check(results: Path, out: Path, *, checkpoints: Path = CHECKPOINTS_FOLDER) -> None:
    """Make sure that the board in `out` is what the result files give.

    Raises:
        StaleError: A file is missing, out of date or left over; the message lists all such files.
        ResultError: A result file cannot be read or must not be on a board.
    """
    board, _ = make_board(results, out, checkpoints=checkpoints)
    stale = [name for name, content in render(board).items() if _content(out / name) != content]
    for kind in _drawn(board):
        name = f"{PLOTS}/{kind}.png"
        if drawn_from(out / name) != source_digest(board, kind):
            stale.append(name)
    stale += [path.relative_to(out).as_posix() for path in _leftover_plots(board, out)]
    if stale:
        names = ", ".join(str(out / name) for name in sorted(stale))
        raise StaleError(f"out of date: {names}. Type: {REGENERATE}")


def _drawn(board: Board) -> list[str]:
    """The kinds of plots for which the board has data."""
    present = {chart.kind for chart in charts(board)}
    return [kind for kind in KINDS if kind in present]


def _leftover_plots(board: Board, out: Path) -> list[Path]:
    gone = [out / PLOTS / f"{kind}.png" for kind in KINDS if kind not in _drawn(board)]
    return [path for path in gone if path.exists()]


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def _replace_all(out: Path, files: dict[str, bytes]) -> None:
    """Replace all files or, if staging any of them fails, none."""
    stage: Path | None = None
    try:
        out.mkdir(parents=True, exist_ok=True)
        stage = Path(tempfile.mkdtemp(prefix=".board.", suffix=".part", dir=out))
        for name, content in files.items():
            write_bytes(stage / name, content)
        for name in files:
            (out / name).parent.mkdir(exist_ok=True)
            (stage / name).replace(out / name)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UrzooError(f"cannot write {out}: {reason}. Nothing was changed; name another folder.") from error
    finally:
        if stage is not None:
            shutil.rmtree(stage, ignore_errors=True)
