"""Learning curves for the board, from the logs that shipped checkpoints and those of the study carry.

A curve is shown only with a result of the very weights whose training the log describes. The log's lines
are written by `urzoo.training.log`; here only the validation scores are read, one per epoch.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

from urzoo.data.schema import load_data_set
from urzoo.errors import CheckpointError
from urzoo.leaderboard.board import CurrentTask, Evidence
from urzoo.leaderboard.schema import Curve
from urzoo.schema import parse_json, read_text
from urzoo.zoo.schema import read_training_summary


def learning_curves(
    evidence: Iterable[Evidence], tasks: Mapping[str, CurrentTask], folders: Mapping[str, Path]
) -> dict[tuple[str, str], Curve]:
    """The curves of urzoo's own checkpoints among the results, by task and model.

    Args:
        evidence: The results on the board.
        tasks: Today's tasks by name.
        folders: Where the checkpoints of each source are, one folder each.

    Raises:
        CheckpointError: A log or training summary is damaged; the message names the file and the line.
    """
    curves = {}
    for one in evidence:
        model, task = one.result.model, one.result.task.name
        if model.source not in folders or task not in tasks:
            continue
        home = folders[model.source] / model.name
        if not (home / "log.jsonl").is_file():
            continue
        summary = read_training_summary(home / "training.json")
        if summary.task != task or summary.weights_sha256 != model.weights_sha256:
            continue
        spec = tasks[task].task.primary_metric
        scores = validation_scores(home / "log.jsonl", spec.name)
        if scores:
            epochs, values = zip(*scores, strict=True)
            is_drawn = load_data_set(summary.data.name).generator is not None
            curves[task, model.name] = Curve(
                model=model.name,
                by="step" if is_drawn else "epoch",
                gate=model.gate,
                # The whole run of what is drawn counts as one epoch.
                epochs=tuple(round(epoch * summary.steps) for epoch in epochs) if is_drawn else epochs,
                values=tuple(round(value * spec.scale, 6) for value in values),
            )
    return curves


def validation_scores(log: Path, metric: str) -> list[tuple[float, float]]:
    """(epoch, value of `metric`) of each validation in a log; of the averaged weights where both were scored.

    Raises:
        CheckpointError: A line is not a JSON object, or a validation has no epoch.
    """
    scores: dict[float, tuple[bool, float]] = {}
    for number, text in enumerate(read_text(log, error=CheckpointError).splitlines(), start=1):
        line = parse_json(text, f"{log} line {number}", error=CheckpointError)
        if not isinstance(line, dict):
            raise CheckpointError(f"{log} line {number} is not a JSON object.")
        if line.get("kind") != "validation" or metric not in line:
            continue
        epoch, value = line.get("epoch"), line[metric]
        if not isinstance(epoch, int | float) or not isinstance(value, int | float):
            raise CheckpointError(f"{log} line {number}: expected numbers as epoch and {metric}.")
        averaged = line.get("weights") == "averaged"
        if epoch not in scores or averaged >= scores[epoch][0]:
            scores[epoch] = (averaged, float(value))
    return [(float(epoch), value) for epoch, (_, value) in sorted(scores.items())]
