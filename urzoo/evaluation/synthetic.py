"""The synthetic problems: symbols to recall after a long lag, numbers to add at their marks.

The copy model scores the next symbol at every step like a language model over ten symbols, but is shown blanks, never
its own or the right answers. The adding model is a regression from the whole sequence to one number.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from urzoo.data import Split
from urzoo.data.generate import COPIED, SYMBOLS, is_adding, is_copy, sums
from urzoo.errors import DataError, UsageError
from urzoo.evaluation.classification import classification_figures
from urzoo.evaluation.journal import Outputs
from urzoo.evaluation.metrics import MeanSquaredError, computed
from urzoo.evaluation.problem import Figures, Precision, Rows, consecutive, data_record, refuse_not_finite, widened
from urzoo.evaluation.task import Task

_COPY_VOCABULARY = SYMBOLS + 2


class Copy:
    """One model on the copy problem; the figures are over the ten symbols of every sequence."""

    default_batch_size = 100

    def __init__(self, task: Task, folder: Path, model: Any, split: Split, precision: Precision) -> None:
        """See that the model knows the ten symbols.

        Raises:
            UsageError: Its vocabulary is another.
            DataError: The sequences are of another problem.
        """
        if model.config.vocab_size != _COPY_VOCABULARY:
            raise UsageError(
                f"{folder} has vocab_size {model.config.vocab_size}; task {task.name} needs {_COPY_VOCABULARY}."
            )
        self.model, self.precision, self.folder = model, precision, folder
        self.symbols = _stacked(split, 1, is_copy)[:, :, 0].astype(np.int64)
        self.data = data_record(split)

    def batches(self, batch_size: int, rows: int) -> Sequence[Rows]:
        """Consecutive sequences."""
        return consecutive(batch_size, rows)

    def outputs(self, rows: Rows) -> Outputs:
        """The scores of all symbols at the last ten steps, `(rows, 10, symbols)`."""
        inputs = torch.from_numpy(self.symbols[rows]).to(self.precision.device)
        with torch.inference_mode(), self.precision.autocast():
            logits = self.model(input_ids=inputs, logits_to_keep=COPIED, use_cache=False).logits
        # Some models give all of them whatever they are asked for.
        scores = widened(logits[:, -COPIED:]).cpu().numpy()
        refuse_not_finite(scores, rows, self.folder)
        return {"scores": scores}

    def figures(self, outputs: Outputs, rows: Rows) -> Figures:
        """The fraction of symbols recalled, with its Wilson interval, and their cross entropy."""
        scores, symbols = outputs["scores"].reshape(-1, _COPY_VOCABULARY), self.symbols[rows, :COPIED].reshape(-1)
        return classification_figures(scores, symbols)

    def predictions(self, outputs: Outputs, rows: Rows) -> dict[str, npt.NDArray[Any]]:
        """The row and how many of its ten symbols were recalled."""
        right = outputs["scores"].argmax(axis=2) == self.symbols[rows, :COPIED]
        return {"row": rows, "symbols_right": right.sum(axis=1)}


class Adding:
    """One model on the adding problem."""

    default_batch_size = 100

    def __init__(self, task: Task, folder: Path, model: Any, split: Split, precision: Precision) -> None:
        """See that the model gives one number.

        Raises:
            UsageError: It gives another number of scores.
            DataError: The sequences are of another problem.
        """
        if model.config.num_labels != 1:
            raise UsageError(f"{folder} has {model.config.num_labels} labels; task {task.name} needs 1, the sum.")
        self.model, self.precision, self.folder = model, precision, folder
        self.sequences = _stacked(split, 2, is_adding)
        self.sums = sums(self.sequences)
        self.data = data_record(split)

    def batches(self, batch_size: int, rows: int) -> Sequence[Rows]:
        """Consecutive sequences."""
        return consecutive(batch_size, rows)

    def outputs(self, rows: Rows) -> Outputs:
        """The model's sums, `(rows,)`."""
        inputs = torch.from_numpy(self.sequences[rows]).to(device=self.precision.device, dtype=self.precision.weights)
        with torch.inference_mode(), self.precision.autocast():
            answers = self.model(inputs_embeds=inputs).logits[:, 0]
        answers = widened(answers).cpu().numpy()
        refuse_not_finite(answers, rows, self.folder)
        return {"sums": answers}

    def figures(self, outputs: Outputs, rows: Rows) -> Figures:
        """The mean squared error; always answering 1 has one of 1/6."""
        return Figures(computed(MeanSquaredError, predictions=outputs["sums"], references=self.sums[rows]), {})

    def predictions(self, outputs: Outputs, rows: Rows) -> dict[str, npt.NDArray[Any]]:
        """The row, the right sum and the model's."""
        return {"row": rows, "label": self.sums[rows], "prediction": outputs["sums"]}


def _stacked(split: Split, channels: int, is_of_kind: Callable[[npt.NDArray[np.float32]], bool]) -> Any:
    sequences = split.sequences
    if len({sequence.shape for sequence in sequences}) == 1 and sequences[0].shape[1] == channels:
        stacked = np.stack(sequences)
        if is_of_kind(stacked):
            return stacked
    raise DataError(
        f"{split.name} ({split.split}) holds no sequences of this problem; expected them of one length, as "
        "urzoo.data.generate draws them."
    )
