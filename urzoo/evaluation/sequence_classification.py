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
from urzoo.evaluation.classification import Classification
from urzoo.evaluation.journal import Outputs
from urzoo.evaluation.problem import Precision, Rows, by_length
from urzoo.evaluation.task import Task
from urzoo.zoo import load_tokenizer

# Tokenizers without a limit of their own write an enormous number instead of one.
_NO_LIMIT = 1_000_000
_COUNT_AFTER_PADDING = ("roberta", "xlm-roberta", "camembert", "roberta-prelayernorm", "longformer")


class TextClassification(Classification):
    """One text classifier on the texts of one split; its tokenizer and positions decide how long a text may be.

    A classifier that is not urzoo's gets padded batches only where it can tell the padding: where its configuration
    and its tokenizer name the same padding token. Else its texts are scored one by one.
    """

    default_batch_size = 32

    def __init__(self, task: Task, folder: Path, model: Any, split: Split, precision: Precision) -> None:  # noqa: ARG002 - all problems are made alike
        """Take the checkpoint's own tokenizer.

        Raises:
            UsageError: The checkpoint scores other classes.
            CheckpointError: Its tokenizer is missing or malformed.
        """
        self.tokenizer = load_tokenizer(folder)
        limit = longest_text(self.tokenizer, model.config)
        read = None if limit is None else f"the first {limit} tokens of each text"
        super().__init__(folder, model, split, precision, subset=read)
        self.options = {"truncation": True, "max_length": limit} if limit is not None else {}
        takes = [name for name in self.tokenizer.model_input_names if name != "token_type_ids"]
        pad = self.tokenizer.pad_token_id
        self.padded = pad is not None and (model.config.model_type == "urlstm" or model.config.pad_token_id == pad)
        # What stands for padding in each of the model's inputs.
        self.padding = {name: pad or 0 if name == "input_ids" else 0 for name in takes}
        self.encoded: list[dict[str, torch.Tensor]] = []

    def batches(self, batch_size: int, rows: int) -> Sequence[Rows]:
        """Texts of similar length together; all are tokenised here, which a fast tokenizer does on all its threads."""
        texts = self.split.texts[:rows]
        encoded = self.tokenizer(texts, padding=False, **self.options)
        self.encoded = [
            {name: torch.tensor(encoded[name][row], dtype=torch.long) for name in self.padding}
            for row in range(len(texts))
        ]
        return by_length([len(one["input_ids"]) for one in self.encoded], batch_size)

    def outputs(self, rows: Rows) -> Outputs:
        """The score of every class, `(rows, classes)`, in the data set's order of classes."""
        groups = [rows] if self.padded else [rows[one : one + 1] for one in range(len(rows))]
        return self.scores(torch.cat([self.logits(**self._padded(group)) for group in groups]), rows)

    def _padded(self, rows: Rows) -> dict[str, torch.Tensor]:
        return {
            name: torch.nn.utils.rnn.pad_sequence(
                [self.encoded[row][name] for row in rows], batch_first=True, padding_value=padding
            ).to(self.precision.device)
            for name, padding in self.padding.items()
        }


class SeriesClassification(Classification):
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
        return self.scores(self.logits(inputs_embeds=inputs, attention_mask=mask.to(self.precision.device)), rows)


def longest_text(tokenizer: Any, config: Any) -> int | None:
    """How many tokens of a text a classifier reads, by its tokenizer and positions; None where neither has a limit."""
    limits = [tokenizer.model_max_length]
    for name in ("n_positions", "max_position_embeddings"):
        positions = getattr(config, name, None)
        if isinstance(positions, int) and positions > 0:
            # RoBERTa and models like it begin to count positions behind that of the padding token.
            first = config.pad_token_id + 1 if config.model_type in _COUNT_AFTER_PADDING else 0
            limits.append(positions - first)
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
