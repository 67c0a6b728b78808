"""Training batches made whole arrays at a time, and an order of samples without hidden state.

The order of an epoch and its augmentation are functions of the seed, the epoch and the sample alone. A resumed run
therefore needs no generator state, and a run on several processes sees the same samples as one on a single process.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

Rows = npt.NDArray[np.int64]
Sample = tuple[int, int]
Batch = dict[str, Tensor]


class EpochOrder(Sampler[Sample]):
    """Samples of one epoch in random order, as pairs (epoch, row); whoever trains sets `epoch` before iterating.

    An epoch is a whole number of batches, so that each step is a mean over the same number of samples: the rest of
    the rows, other ones in each epoch, is left out.

    Args:
        rows: Number of rows of the data.
        batch_size: That of all processes together.
        seed: With the epoch, it decides the order.
    """

    def __init__(self, rows: int, *, batch_size: int, seed: int) -> None:
        self.rows = rows
        self.samples = rows // batch_size * batch_size
        self.seed = seed
        self.epoch = 0

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


class BatchData(Dataset[Batch]):
    """Rows of data that are served a batch at a time."""

    def __len__(self) -> int:
        """The number of rows."""
        raise NotImplementedError

    def batch(self, rows: Rows, *, epoch: int) -> Batch:
        """The model's inputs and the labels of some rows, as an epoch of training sees them."""
        raise NotImplementedError

    def order(self, *, batch_size: int, seed: int) -> EpochOrder:
        """The order in which training takes the rows."""
        return EpochOrder(len(self), batch_size=batch_size, seed=seed)

    def __getitem__(self, sample: int | Sample) -> Batch:
        """One sample, as a batch of one."""
        return self.__getitems__([sample])

    def __getitems__(self, samples: Sequence[int | Sample]) -> Batch:
        """A batch; torch's loader calls this with all samples of a batch where it exists."""
        pairs = [sample if isinstance(sample, tuple) else (0, sample) for sample in samples]
        return self.batch(np.array([row for _, row in pairs], np.int64), epoch=pairs[0][0])


def already_batched(batch: Any) -> Batch:
    """The loader's collating step: `BatchData` has made the batch already."""
    assert isinstance(batch, dict)
    return batch


def padded(rows: Sequence[Tensor], *, value: float = 0) -> tuple[Tensor, Tensor]:
    """Rows `(time, ...)` of different lengths side by side, filled up on the right, and what of it is real.

    Returns:
        The rows, `(batch, longest time, ...)`, and the mask, `(batch, longest time)`, 1 where a step is real.
    """
    inputs = torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True, padding_value=value)
    lengths = torch.tensor([len(row) for row in rows])
    return inputs, (torch.arange(inputs.shape[1]) < lengths[:, None]).long()
