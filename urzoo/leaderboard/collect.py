"""Reading what the leaderboard is made of: result files, today's tasks and how checkpoints began."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from urzoo.data.schema import load_data_set
from urzoo.errors import ResultError
from urzoo.evaluation.schema import read_result, result_path
from urzoo.evaluation.task import load_task, tasks
from urzoo.leaderboard.board import CurrentTask, Evidence
from urzoo.leaderboard.text import refuse_unprintable
from urzoo.zoo.schema import read_training_summary


@dataclass(frozen=True)
class Collected:
    """The results under a folder: those for the board, and by file what keeps a result off it."""

    evidence: tuple[Evidence, ...]
    left_out: dict[str, str]


def current_tasks() -> dict[str, CurrentTask]:
    """The tasks of this version of urzoo by name, each with the digest its data must have."""
    current = {}
    for name in tasks():
        task = load_task(name)
        current[name] = CurrentTask(task, load_data_set(task.data.name).pinned_digest(task.data.split))
    return current


def collect(results: Path, board: Path | None = None) -> Collected:
    """Read every result file under a folder; results on a user's own data are no rows of a board.

    Args:
        results: The folder, with files at `<model>/<task>.json`. Empty and missing folders give no results.
        board: The board's folder; rows link to their result files where these are inside it.

    Raises:
        ResultError: A file is unreadable, malformed, of an unknown schema, holds unprintable text, or is not
            where its content belongs. Nothing is skipped in silence.
    """
    evidence: list[Evidence] = []
    left_out: dict[str, str] = {}
    for path in sorted(results.glob("**/*.json")):
        name = path.relative_to(results).as_posix()
        result = read_result(path)
        # Not the path as it stands on this machine: messages may be, but links and ids must not be.
        refuse_unprintable(path, result.model_dump(mode="json"))
        if result.data.source == "local":
            left_out[name] = "on data of your own"
            continue
        expected = result_path(results, result.model.name, result.task.name)
        if expected != path:
            raise ResultError(
                f"{path}: holds the result of {result.model.name} on {result.task.name}; expected it at {expected}."
            )
        if result.partial:
            left_out[name] = "partial"
            continue
        is_inside = board is not None and path.absolute().is_relative_to(board.absolute())
        link = path.absolute().relative_to(board.absolute()).as_posix() if board and is_inside else None
        evidence.append(Evidence(result, str(path), link))
    return Collected(tuple(evidence), left_out)


def begun_with(evidence: Iterable[Evidence], folders: Mapping[str, Path]) -> dict[str, str]:
    """The checkpoint that a model among the results began with, by model, where it was not with drawn weights.

    Args:
        evidence: The results.
        folders: Where the checkpoints of each source are, one folder each.

    Raises:
        CheckpointError: A training summary is damaged.
    """
    found = {}
    for model in {one.result.model.name: one.result.model for one in evidence}.values():
        file = folders[model.source] / model.name / "training.json" if model.source in folders else None
        if file is not None and file.is_file():
            summary = read_training_summary(file)
            if summary.initialised_from is not None and summary.weights_sha256 == model.weights_sha256:
                found[model.name] = summary.initialised_from.name
    return found
