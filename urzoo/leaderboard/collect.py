"""Reading what the leaderboard is made of: result files, today's tasks and how checkpoints came to be."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from urzoo.data.schema import load_data_set
from urzoo.errors import CheckpointError, ResultError
from urzoo.evaluation.schema import read_result, result_path
from urzoo.evaluation.task import load_task, tasks
from urzoo.leaderboard.board import Background, CurrentTask, Evidence
from urzoo.leaderboard.text import refuse_unprintable
from urzoo.schema import read_yaml
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


def backgrounds(evidence: Iterable[Evidence], folders: Mapping[str, Path]) -> dict[str, Background]:
    """How the models among the results came to be, by model, as far as their own folders tell.

    Args:
        evidence: The results.
        folders: Where the checkpoints of each source are, one folder each.

    Raises:
        CheckpointError: A training summary or a recipe is damaged.
    """
    found = {}
    for model in {one.result.model.name: one.result.model for one in evidence}.values():
        home = folders[model.source] / model.name if model.source in folders else None
        if home is None or not (home / "training.json").is_file():
            continue
        summary = read_training_summary(home / "training.json")
        if summary.weights_sha256 == model.weights_sha256:
            found[model.name] = Background(
                begun_with=None if summary.initialised_from is None else summary.initialised_from.name,
                learnt=tuple(sorted({data.name for data in (summary.data, *summary.additional_data)})),
                departures=_departures(home / "recipe.yaml"),
            )
    return found


def _departures(recipe: Path) -> tuple[str, ...]:
    """Where a recipe departs from reading the rows as they are and, of pixels, answering from the last output."""
    content = read_yaml(recipe, error=CheckpointError) if recipe.is_file() else None
    if not isinstance(content, dict):
        return ()
    sections = (content.get("augmentation"), content.get("model"))
    augmentation, model = (section if isinstance(section, dict) else {} for section in sections)
    changes = dict.fromkeys(
        key.removesuffix("_min").removesuffix("_max").replace("_", " ")
        for key, value in augmentation.items()
        if value not in (None, False, 0) and not (key.startswith("time_scale") and value == 1)
    )
    pooling = model.get("pooling")
    said = [f"augmented with {', '.join(changes)}"] if changes else []
    if (
        content.get("architecture") == "URLSTMForImageClassification"
        and isinstance(pooling, list)
        and pooling != ["last"]
    ):
        said.append(f"pooled over {', '.join(map(str, pooling))}")
    return tuple(said)
