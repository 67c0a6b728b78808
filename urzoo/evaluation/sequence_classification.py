"""Texts and series of vectors, classified from whole sequences: imdb, character_trajectories.

Rows of a batch have different lengths: they are padded on the right and masked where that cannot sway the model.
Batches are made of rows of similar length, which changes nothing but the time it takes.
"""

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from urzoo.data import Split
from urzoo.evaluation.classification import Classification
from urzoo.evaluation.journal import Outputs
from urzoo.evaluation.problem import Precision, Rows, by_length
from urzoo.evaluation.task import Task
from urzoo.zoo import load_tokenizer

# Tokenizers without a limit of their own write an enormous number instead of one.
_NO_LIMIT = 1_000_000


class SequenceClassification(Classification):
    """What texts and series share: batches of rows of similar length.

    urzoo's classifiers read padded batches by their mask. Others differ in the side they are padded on, in what they
    count as padding and in what it does to them, so that they are given rows of one length together, without any.
    """

    lengths: Sequence[int] = ()

    def batches(self, batch_size: int, rows: int) -> Sequence[Rows]:
        """Rows of similar length together."""
        return by_length(self.lengths[:rows], batch_size)

    def outputs(self, rows: Rows) -> Outputs:
        """The score of every class, `(rows, classes)`, in the data set's order of classes."""
        lengths, groups = np.array([self.lengths[row] for row in rows]), [rows]
        if self.model.config.model_type != "urlstm":
            # Those that find the end of a row by its padding token take no two where they have none.
            together = getattr(self.model.config, "pad_token_id", None) is not None
            groups = np.split(rows, np.flatnonzero(np.diff(lengths)) + 1 if together else np.arange(1, len(rows)))
        return self.scores(torch.cat([self.logits(**self.inputs(group)) for group in groups]), rows)

    def inputs(self, rows: Rows) -> dict[str, torch.Tensor]:
        """What the model is given of these rows, padded where they differ in length."""
        raise NotImplementedError


class TextClassification(SequenceClassification):
    """One text classifier on the texts of one split; its tokenizer and positions decide how long a text may be."""

    default_batch_size = 32

    def __init__(self, task: Task, folder: Path, model: Any, split: Split, precision: Precision) -> None:  # noqa: ARG002 - all problems are made alike
        """Take the checkpoint's own tokenizer.

        Raises:
            UsageError: The checkpoint scores other classes.
            CheckpointError: Its tokenizer is missing or malformed.
        """
        self.tokenizer = load_tokenizer(folder)
        limit = longest_text(self.tokenizer, model)
        read = None if limit is None else f"the first {limit} tokens of each text"
        super().__init__(folder, model, split, precision, subset=read)
        self.options = {"truncation": True, "max_length": limit} if limit is not None else {}
        # As `Trainer` chooses among the tokenizer's outputs.
        self.takes = set(inspect.signature(model.forward).parameters)
        self.encoded: list[dict[str, torch.Tensor]] = []

    def batches(self, batch_size: int, rows: int) -> Sequence[Rows]:
        """Texts of similar length together; all are tokenised here, which a fast tokenizer does on all its threads."""
        texts = self.split.texts[:rows]
        encoded = self.tokenizer(texts, padding=False, **self.options)
        inputs = [name for name in encoded if name in self.takes and name != "attention_mask"]
        self.encoded = [
            {name: torch.tensor(encoded[name][row], dtype=torch.long, device="cpu") for name in inputs}
            for row in range(len(texts))
        ]
        self.lengths = [len(one["input_ids"]) for one in self.encoded]
        return super().batches(batch_size, rows)

    def inputs(self, rows: Rows) -> dict[str, torch.Tensor]:
        """The tokens and what else the tokenizer gives."""
        encoded = [self.encoded[row] for row in rows]
        inputs = {name: padded([one[name] for one in encoded]) for name in encoded[0]}
        if "attention_mask" in self.takes:
            # Not the tokenizer's, some of which give none.
            inputs["attention_mask"] = padded([torch.ones_like(one["input_ids"]) for one in encoded])
        return {name: tensor.to(self.precision.device) for name, tensor in inputs.items()}


class SeriesClassification(SequenceClassification):
    """One classifier of series of vectors on one split, at the data's sampling rate or another."""

    default_batch_size = 64

    def __init__(self, task: Task, folder: Path, model: Any, split: Split, precision: Precision) -> None:
        """Resample the series to the task's rate.

        Raises:
            UsageError: The checkpoint scores other classes.
        """
        assert task.time_scale is not None
        super().__init__(folder, model, split, precision)
        self.series = [resampled(series, task.time_scale) for series in split.sequences]
        self.lengths = [len(series) for series in self.series]

    def inputs(self, rows: Rows) -> dict[str, torch.Tensor]:
        """The series and their mask."""
        series = [torch.from_numpy(self.series[row]) for row in rows]
        mask = padded([torch.ones(len(one), dtype=torch.bool, device="cpu") for one in series])
        inputs = padded(series).to(device=self.precision.device, dtype=self.precision.weights)
        return {"inputs_embeds": inputs, "attention_mask": mask.to(self.precision.device)}


def padded(rows: list[torch.Tensor]) -> torch.Tensor:
    """Rows of one kind as one tensor, `(rows, time, ...)`, with zeros behind the shorter ones."""
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)


def longest_text(tokenizer: Any, model: Any) -> int | None:
    """How many tokens of a text a classifier reads, by its tokenizer and positions; None where neither has a limit."""
    limits = [tokenizer.model_max_length]
    # RoBERTa and models like it begin to count positions behind that of the padding token.
    padding = [
        module.padding_idx
        for name, module in model.named_modules()
        if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None
    ]
    for name in ("n_positions", "max_position_embeddings"):
        positions = getattr(model.config, name, None)
        if isinstance(positions, int) and positions > 0:
            limits.append(positions - max(padding, default=-1) - 1)
    limit = min(limits)
    return limit if limit < _NO_LIMIT else None


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
