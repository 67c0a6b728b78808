"""What every kind of classification shares: scores in the data's order of classes, and the figures from them."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from urzoo.data import Split
from urzoo.errors import UsageError
from urzoo.evaluation.intervals import wilson
from urzoo.evaluation.journal import Outputs
from urzoo.evaluation.metrics import Accuracy, CrossEntropy, computed, log_probabilities
from urzoo.evaluation.problem import Figures, Precision, Rows, data_record, refuse_not_finite, widened

# What other libraries and this one call classes that have no names.
_NUMBERED = re.compile(r"(label_)?\d+", re.IGNORECASE)


def class_columns(config: Any, classes: list[str], folder: Path) -> list[int]:
    """For every class of the data, the number of the model's score for it.

    The model's own names of the classes decide, in capitals or not, unless that leaves a doubt; where they are none of
    the data's, the order is taken as it is.

    Raises:
        UsageError: The model scores another number of classes, knows only some of the names, or has one twice.
    """
    if sorted(config.id2label) != list(range(config.num_labels)):
        raise UsageError(f"{folder / 'config.json'}: the keys of id2label are not 0 to {config.num_labels - 1}.")
    own = [str(config.id2label[number]) for number in range(config.num_labels)]
    if len(own) != len(classes):
        raise UsageError(f"{folder} scores {len(own)} classes, expected {len(classes)}: {', '.join(classes)}.")
    names, of_data = own, classes
    if len({name.casefold() for name in classes}) == len(classes):
        names, of_data = ([name.casefold() for name in of] for of in (own, classes))
    if not set(names) & set(of_data):
        return list(range(len(classes)))
    for name, said in zip(names, own, strict=True):
        if name not in of_data or names.count(name) > 1:
            twice = " twice" if name in of_data else ""
            raise UsageError(f"{folder} scores a class {said!r}{twice}, expected {', '.join(classes)}.")
    return [names.index(name) for name in of_data]


def taken_for(config: Any, classes: list[str]) -> str | None:
    """What to tell where a model's own names of the classes are none of the data's, and no mere numbers."""
    own = [str(config.id2label[number]) for number in range(config.num_labels)]
    if {name.casefold() for name in own} & {name.casefold() for name in classes}:
        return None
    if any(all(_NUMBERED.fullmatch(name) for name in names) for names in (own, classes)):
        return None
    pairs = [f"{name!r} for {of_data!r}" for name, of_data in zip(own, classes, strict=True)]
    return f"its classes taken in order: {', '.join(pairs[:3])}{', ...' * (len(pairs) > 3)}"


class Classification:
    """One classifier on one split; a kind prepares its inputs and gives their `outputs`.

    Args:
        folder: The checkpoint's.
        model: Its model.
        split: The data.
        precision: Where and in which type to compute.
        subset: What the model reads of the data, in words, where that is not all.

    Raises:
        UsageError: The checkpoint scores other classes.
    """

    def __init__(
        self, folder: Path, model: Any, split: Split, precision: Precision, *, subset: str | None = None
    ) -> None:
        self.columns = class_columns(model.config, split.classes, folder)
        self.folder, self.model, self.split, self.precision = folder, model, split, precision
        read = "; ".join(told for told in (subset, taken_for(model.config, split.classes)) if told)
        self.data = data_record(split, subset=read[:500] or None)

    def logits(self, **inputs: torch.Tensor) -> torch.Tensor:
        """The model's scores, `(rows, classes)`, in its own order of classes."""
        with torch.inference_mode(), self.precision.autocast():
            logits: torch.Tensor = self.model(**inputs).logits
        return logits

    def scores(self, logits: torch.Tensor, rows: Rows) -> Outputs:
        """The same in the data's order of classes.

        Raises:
            CheckpointError: One of them is NaN or infinite.
        """
        scores = widened(logits).cpu().numpy()[:, self.columns]
        refuse_not_finite(scores, rows, self.folder)
        return {"scores": scores}

    def figures(self, outputs: Outputs, rows: Rows) -> Figures:
        """Accuracy with its Wilson interval, and cross entropy."""
        return classification_figures(outputs["scores"], self.split.labels[rows])

    def predictions(self, outputs: Outputs, rows: Rows) -> dict[str, npt.NDArray[Any]]:
        """The row, its label, the predicted class, and the log-probability of the label in nats."""
        scores, labels = outputs["scores"], self.split.labels[rows]
        return {
            "row": rows,
            "label": labels,
            "prediction": scores.argmax(axis=1),
            "label_log_probability": log_probabilities(scores, labels),
        }


def classification_figures(scores: npt.NDArray[np.floating[Any]], answers: npt.NDArray[np.int64]) -> Figures:
    """Accuracy with its Wilson interval, and cross entropy, of scores `(answers, classes)`."""
    predicted = scores.argmax(axis=1)
    accuracy = computed(Accuracy, predictions=predicted, references=answers)
    cross_entropy = computed(CrossEntropy, predictions=scores, references=answers)
    interval = wilson(int((predicted == answers).sum()), len(answers))
    return Figures({**accuracy, **cross_entropy}, {"accuracy": interval})
