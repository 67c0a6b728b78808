"""Training batches made whole arrays at a time, and an order of samples without hidden state.

Rows are read in epochs: their order and augmentation are functions of the seed, the epoch and the row alone. Streams
are read in steps: what a row of a batch holds is a function of the seed, the step and the row. A resumed run therefore
needs no generator state, and a run on several processes sees the same samples as one on a single process.
"""

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

Rows = npt.NDArray[np.int64]
Sample = tuple[int, int]
Batch = dict[str, Tensor]


class Order(Sampler[Sample]):
    """The samples of one pass, batch by batch; whoever trains sets `epoch` before iterating.

    Attributes:
        epoch: The pass, counted from 0.
        steps_per_epoch: Steps that the log counts as one epoch.
    """

    epoch = 0
    steps_per_epoch: int

    def __len__(self) -> int:
        """The number of samples of a pass."""
        raise NotImplementedError


class EpochOrder(Order):
    """Samples of one epoch in random order, as pairs (epoch, row).

    An epoch is a whole number of batches, so that each step is a mean over the same number of samples: the rest of
    the rows, other ones in each epoch, is left out.

    Args:
        rows: Number of rows of the data.
        batch_size: That of all processes together.
        seed: With the epoch, it decides the order.
    """

    def __init__(self, rows: int, *, batch_size: int, seed: int) -> None:
        self.rows = rows
        self.steps_per_epoch = rows // batch_size
        self.samples = self.steps_per_epoch * batch_size
        self.seed = seed

    def __len__(self) -> int:
        """The number of samples of an epoch."""
        return self.samples

    def __iter__(self) -> Iterator[Sample]:
        """The samples of the current epoch."""
        return zip([self.epoch] * self.samples, self._order().tolist(), strict=True)

    def _order(self) -> Rows:
        return np.random.default_rng((self.seed, self.epoch)).permutation(self.rows)[: self.samples]


class LengthOrder(EpochOrder):
    """Samples of one epoch such that those of a batch are of similar length, in random order otherwise.

    The samples that `EpochOrder` gives are taken in pools of some batches; a pool is sorted by length and cut into
    batches, and the batches of the epoch are shuffled.

    Args:
        lengths: Of each row, in steps.
        batch_size: That of all processes together.
        pool_batches: Batches in a pool; 1 leaves the batches as `EpochOrder` has them.
        seed: With the epoch, it decides the order.
    """

    def __init__(self, lengths: npt.NDArray[np.int64], *, batch_size: int, pool_batches: int, seed: int) -> None:
        super().__init__(len(lengths), batch_size=batch_size, seed=seed)
        self.lengths = lengths
        self.batch_size = batch_size
        self.pool_batches = pool_batches

    def _order(self) -> Rows:
        order = super()._order()
        if self.pool_batches == 1:
            return order
        pool = self.pool_batches * self.batch_size
        for start in range(0, len(order), pool):
            part = order[start : start + pool]
            order[start : start + pool] = part[np.argsort(self.lengths[part], kind="stable")]
        batches = order.reshape(-1, self.batch_size)
        # The 2 sets this stream apart from that of the order, which has the same seed and epoch.
        shuffled: Rows = np.random.default_rng((self.seed, self.epoch, 2)).permutation(batches).reshape(-1)
        return shuffled


class StepOrder(Order):
    """All samples of a stream, as pairs (step, row); the run is one pass.

    Args:
        steps: Of the run.
        batch_size: That of all processes together.
        steps_per_epoch: See `Order`.
    """

    def __init__(self, steps: int, *, batch_size: int, steps_per_epoch: int) -> None:
        self.steps, self.batch_size, self.steps_per_epoch = steps, batch_size, steps_per_epoch

    def __len__(self) -> int:
        """The number of samples of the run."""
        return self.steps * self.batch_size

    def __iter__(self) -> Iterator[Sample]:
        """The samples of the run."""
        return product(range(self.steps), range(self.batch_size))


class TrainingSamples(Dataset[Batch]):
    """What a run learns from, served a batch at a time."""

    # Right shift of the seed that a step's dropout has. Those of streams are from before they had a loop in common
    # with rows; runs of then go on with them.
    seed_shift = 0

    def __len__(self) -> int:
        """The number of samples of a pass."""
        raise NotImplementedError

    def order(self, *, batch_size: int, seed: int) -> Order:
        """The order in which training takes the samples."""
        raise NotImplementedError

    def __getitem__(self, sample: int | Sample) -> Batch:
        """One sample, as a batch of one."""
        return self.__getitems__([sample])

    def __getitems__(self, samples: Sequence[int | Sample]) -> Batch:
        """A batch; torch's loader calls this with all samples of a batch where it exists."""
        raise NotImplementedError


class StreamData(TrainingSamples):
    """A stream: each row of a batch goes on where it stopped in the step before, or is drawn for its step.

    Args:
        steps: Of the run.
        batch_size: Rows of a batch of all processes together.
        steps_per_epoch: Steps that the log counts as one epoch.
    """

    seed_shift = 1

    def __init__(self, *, steps: int, batch_size: int, steps_per_epoch: int) -> None:
        self.steps, self.batch_size, self.steps_per_epoch = steps, batch_size, steps_per_epoch

    def __len__(self) -> int:
        """The number of samples of the run."""
        return self.steps * self.batch_size

    def batch(self, step: int, rows: Rows) -> Batch:
        """The inputs and targets of some rows of a step, counted from 0."""
        raise NotImplementedError

    def order(self, *, batch_size: int, seed: int) -> StepOrder:  # noqa: ARG002 - a stream has its own seed
        """One step after the other."""
        return StepOrder(self.steps, batch_size=batch_size, steps_per_epoch=self.steps_per_epoch)

    def __getitems__(self, samples: Sequence[int | Sample]) -> Batch:
        """A batch."""
        pairs = [sample if isinstance(sample, tuple) else divmod(sample, self.batch_size) for sample in samples]
        return self.batch(pairs[0][0], np.array([row for _, row in pairs], np.int64))


class BatchData(TrainingSamples):
    """Rows of data, each of which is read once an epoch."""

    def __len__(self) -> int:
        """The number of rows."""
        raise NotImplementedError

    def batch(self, rows: Rows, *, epoch: int) -> Batch:
        """The model's inputs and the labels of some rows, as an epoch of training sees them."""
        raise NotImplementedError

    def order(self, *, batch_size: int, seed: int) -> EpochOrder:
        """The order in which training takes the rows."""
        return EpochOrder(len(self), batch_size=batch_size, seed=seed)

    def __getitems__(self, samples: Sequence[int | Sample]) -> Batch:
        """A batch."""
        pairs = [sample if isinstance(sample, tuple) else (0, sample) for sample in samples]
        return self.batch(np.array([row for _, row in pairs], np.int64), epoch=pairs[0][0])


def already_batched(batch: Any) -> Batch:
    """The loader's collating step: `BatchData` has made the batch already."""
    assert isinstance(batch, dict)
    return batch


def time_steps(inputs: dict[str, Tensor]) -> int:
    """Steps of sequences in a batch, without padding; what the model reads comes first in it."""
    if "attention_mask" in inputs:
        return int(inputs["attention_mask"].sum())
    batch, time_steps = next(iter(inputs.values())).shape[:2]
    return int(batch * time_steps)


def padded(rows: Sequence[Tensor], *, value: float = 0) -> tuple[Tensor, Tensor]:
    """Rows `(time, ...)` of different lengths side by side, filled up on the right, and what of it is real.

    Returns:
        The rows, `(batch, longest time, ...)`, and the mask, `(batch, longest time)`, 1 where a step is real.
    """
    inputs = torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True, padding_value=value)
    lengths = torch.tensor([len(row) for row in rows])
    return inputs, (torch.arange(inputs.shape[1]) < lengths[:, None]).long()
