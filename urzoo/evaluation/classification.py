"""What every kind of classification shares: scores in the data's order of classes, and the figures from them."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from urzoo.errors import CheckpointError, UsageError
from urzoo.evaluation.intervals import wilson
from urzoo.evaluation.metrics import Accuracy, CrossEntropy, computed, log_probabilities
from urzoo.evaluation.problem import Figures, Rows

Scores = npt.NDArray[np.float32]


def class_columns(config: Any, classes: list[str], folder: Path) -> list[int]:
    """For every class of the data, the number of the model's score for it.

    The model's own names of the classes decide; where they are none of the data's, the order is taken as it is.

    Raises:
        UsageError: The model scores another number of classes, or knows only some of the names.
    """
    names = [config.id2label[number] for number in range(config.num_labels)]
    if len(names) != len(classes):
        raise UsageError(f"{folder} scores {len(names)} classes, expected {len(classes)}: {', '.join(classes)}.")
    if set(names) == set(classes):
        return [names.index(name) for name in classes]
    if set(names) & set(classes):
        stray = sorted(set(names) - set(classes))[0]
        raise UsageError(f"{folder} scores a class {stray!r}, expected {', '.join(classes)}.")
    return list(range(len(classes)))


def finite_scores(logits: torch.Tensor, columns: list[int], rows: Rows, folder: Path) -> Scores:
    """A model's scores `(rows, classes)` in the data's order of classes.

    Raises:
        CheckpointError: One of them is NaN or infinite.
    """
    scores: Scores = logits.float().cpu().numpy()[:, columns]
    finite = np.isfinite(scores).all(axis=1)
    if not finite.all():
        raise CheckpointError(f"{folder} gives NaN or infinite scores for row {rows[~finite][0]} of the data.")
    return scores


def classification_figures(scores: Scores, labels: npt.NDArray[np.int64]) -> Figures:
    """Accuracy with its Wilson interval, and cross entropy."""
    predicted = scores.argmax(axis=1)
    accuracy = computed(Accuracy, predictions=predicted, references=labels)
    cross_entropy = computed(CrossEntropy, predictions=scores, references=labels)
    interval = wilson(int((predicted == labels).sum()), len(labels))
    return Figures({**accuracy, **cross_entropy}, {"accuracy": interval})


def classification_predictions(
    scores: Scores, labels: npt.NDArray[np.int64], rows: Rows
) -> dict[str, npt.NDArray[Any]]:
    """The row, its label, the predicted class, and the log-probability of the label in nats."""
    return {
        "row": rows,
        "label": labels,
        "prediction": scores.argmax(axis=1),
        "label_log_probability": log_probabilities(scores, labels),
    }
