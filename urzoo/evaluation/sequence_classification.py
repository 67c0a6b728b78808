"""Texts and series of vectors, classified from whole sequences: imdb, character_trajectories.

Rows of a batch have different lengths: they are padded on the right and masked, and a model must not be swayed by
the padding. Batches are made of rows of similar length, which changes nothing but the time it takes.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from urzoo.data import Split
from urzoo.evaluation.classification import (
    class_columns,
    classification_figures,
    classification_predictions,
    finite_scores,
)
from urzoo.evaluation.journal import Outputs
from urzoo.evaluation.problem import Figures, Precision, Rows, by_length, data_record
from urzoo.evaluation.task import Task
from urzoo.zoo import load_tokenizer

# Tokenizers without a limit of their own write an enormous number instead of one.
_NO_LIMIT = 1_000_000


class TextClassification:
    """One text classifier on the texts of one split; its tokenizer decides how long a text may be."""

    default_batch_size = 32

    def __init__(self, task: Task, folder: Path, model: Any, split: Split, precision: Precision) -> None:  # noqa: ARG002 - all problems are made alike
        """Take the checkpoint's own tokenizer.

        Raises:
            UsageError: The checkpoint scores other classes.
            CheckpointError: Its tokenizer is missing or malformed.
        """
        self.tokenizer = load_tokenizer(folder)
        self.columns = class_columns(model.config, split.classes, folder)
        self.model, self.split, self.precision, self.folder = model, split, precision, folder
        self.data = data_record(split)
        limit = self.tokenizer.model_max_length
        self.options = {"truncation": True, "max_length": limit} if limit < _NO_LIMIT else {}
        self.takes = [name for name in self.tokenizer.model_input_names if name != "token_type_ids"]

    def batches(self, batch_size: int, rows: int) -> Sequence[Rows]:
        """Texts of similar length together."""
        return by_length([len(text) for text in self.split.texts[:rows]], batch_size)

    def outputs(self, rows: Rows) -> Outputs:
        """The score of every class, `(rows, classes)`, in the data set's order of classes."""
        texts = self.split.texts
        encoded = self.tokenizer(
            [texts[row] for row in rows], padding=True, padding_side="right", return_tensors="pt", **self.options
        )
        inputs = {name: encoded[name].to(self.precision.device) for name in self.takes}
        with torch.inference_mode(), self.precision.autocast():
            logits = self.model(**inputs).logits
        return {"scores": finite_scores(logits, self.columns, rows, self.folder)}

    def figures(self, outputs: Outputs, rows: Rows) -> Figures:
        """Accuracy with its Wilson interval, and cross entropy."""
        return classification_figures(outputs["scores"], self.split.labels[rows])

    def predictions(self, outputs: Outputs, rows: Rows) -> dict[str, npt.NDArray[Any]]:
        """The row, its label, the predicted class, and the log-probability of the label in nats."""
        return classification_predictions(outputs["scores"], self.split.labels[rows], rows)


class SeriesClassification:
    """One classifier of series of vectors on one split, at the data's sampling rate or another."""

    default_batch_size = 64

    def __init__(self, task: Task, folder: Path, model: Any, split: Split, precision: Precision) -> None:
        """Resample the series to the task's rate.

        Raises:
            UsageError: The checkpoint scores other classes.
        """
        assert task.time_scale is not None
        self.columns = class_columns(model.config, split.classes, folder)
        self.model, self.split, self.precision, self.folder = model, split, precision, folder
        self.data = data_record(split)
        self.series = [resampled(series, task.time_scale) for series in split.sequences]

    def batches(self, batch_size: int, rows: int) -> Sequence[Rows]:
        """Series of similar length together."""
        return by_length([len(series) for series in self.series[:rows]], batch_size)

    def outputs(self, rows: Rows) -> Outputs:
        """The score of every class, `(rows, classes)`, in the data set's order of classes."""
        series = [torch.from_numpy(self.series[row]) for row in rows]
        inputs = torch.nn.utils.rnn.pad_sequence(series, batch_first=True)
        lengths = torch.tensor([len(one) for one in series])
        mask = torch.arange(inputs.shape[1]) < lengths[:, None]
        inputs = inputs.to(device=self.precision.device, dtype=self.precision.weights)
        with torch.inference_mode(), self.precision.autocast():
            logits = self.model(inputs_embeds=inputs, attention_mask=mask.to(self.precision.device)).logits
        return {"scores": finite_scores(logits, self.columns, rows, self.folder)}

    def figures(self, outputs: Outputs, rows: Rows) -> Figures:
        """Accuracy with its Wilson interval, and cross entropy."""
        return classification_figures(outputs["scores"], self.split.labels[rows])

    def predictions(self, outputs: Outputs, rows: Rows) -> dict[str, npt.NDArray[Any]]:
        """The row, its label, the predicted class, and the log-probability of the label in nats."""
        return classification_predictions(outputs["scores"], self.split.labels[rows], rows)


def resampled(series: npt.NDArray[np.float32], time_scale: float) -> npt.NDArray[np.float32]:
    """A series `(time, channels)` as another sampling rate would have given it.

    The values at the new moments are interpolated linearly, first and last moment staying; at scale 1 nothing changes.

    Args:
        series: The series at the data's rate.
        time_scale: Steps for each step of the data; 0.5 keeps about every other.
    """
    if time_scale == 1.0:
        return series
    moments = np.arange(len(series))
    wanted = np.linspace(0, len(series) - 1, max(2, round(len(series) * time_scale)))
    columns = [np.interp(wanted, moments, channel) for channel in series.T.astype(np.float64)]
    return np.stack(columns, axis=1).astype(np.float32)
