"""Training batches made whole arrays at a time, and an order of samples without hidden state.

Rows are read in epochs: their order and augmentation are functions of the seed, the epoch and the row alone. Streams
are read in steps: what a row of a batch holds is a function of the seed, the step and the row. A resumed run therefore
needs no generator state, and a run on several processes sees the same samples as one on a single process.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

Rows = npt.NDArray[np.int64]
SampleIndex = tuple[int, int]
Batch = dict[str, Tensor]
# What the names of a batch's inputs without labels begin with.
UNLABELLED = "unlabelled_"


class Order(Sampler[SampleIndex]):
    """The samples of one pass, batch by batch; `epoch`, the pass counted from 0, is set before iterating.

    Those of a stream, whose run is one pass, are pairs (step, row of the batch).

    Args:
        samples: Of a pass.
        batch_size: That of all processes together.
        steps_per_epoch: Steps that the log counts as one epoch.
    """

    epoch = 0

    def __init__(self, samples: int, *, batch_size: int, steps_per_epoch: int) -> None:
        self.samples, self.batch_size, self.steps_per_epoch = samples, batch_size, steps_per_epoch

    def __len__(self) -> int:
        return self.samples

    def __iter__(self) -> Iterator[SampleIndex]:
        return (divmod(sample, self.batch_size) for sample in range(self.samples))


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
        super().__init__(rows - rows % batch_size, batch_size=batch_size, steps_per_epoch=rows // batch_size)
        self.rows, self.seed = rows, seed

    def __iter__(self) -> Iterator[SampleIndex]:
        return product([self.epoch], self._order().tolist())

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
        self.lengths, self.pool_batches = lengths, pool_batches

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


class TrainingSamples(Dataset[Batch]):
    """What a run learns from, served a batch at a time."""

    # By how many bits the seed of a step's dropout is shifted to the right. Streams have kept theirs from the time when
    # they had a loop of their own, so that their recipes give the weights that they gave then.
    seed_shift = 0

    def __len__(self) -> int:
        raise NotImplementedError

    def order(self, *, batch_size: int, seed: int) -> Order:
        """The order in which training takes the samples."""
        raise NotImplementedError

    def __getitems__(self, samples: Sequence[SampleIndex]) -> Batch:
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
        return self.steps * self.batch_size

    def batch(self, step: int, rows: Rows) -> Batch:
        """The inputs and targets of some rows of a step, counted from 0."""
        raise NotImplementedError

    def order(self, *, batch_size: int, seed: int) -> Order:  # noqa: ARG002 - a stream has its own seed
        """One step after the other."""
        return Order(len(self), batch_size=batch_size, steps_per_epoch=self.steps_per_epoch)

    def __getitems__(self, samples: Sequence[SampleIndex]) -> Batch:
        return self.batch(samples[0][0], np.array([row for _, row in samples], np.int64))


class BatchData(TrainingSamples):
    """Rows of data with their classes, `labels`, each of which is read once an epoch."""

    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, rows: Rows, *, epoch: int) -> Batch:
        """The model's inputs and the labels of some rows, as an epoch of training sees them."""
        raise NotImplementedError

    def order(self, *, batch_size: int, seed: int) -> EpochOrder:
        """The order in which training takes the rows."""
        return EpochOrder(len(self), batch_size=batch_size, seed=seed)

    def __getitems__(self, samples: Sequence[SampleIndex]) -> Batch:
        return self.batch(np.array([row for _, row in samples], np.int64), epoch=samples[0][0])


class SequenceData(BatchData):
    """Sequences of different lengths with their classes, padded on the right and masked.

    Args:
        name: The model's input that they are.
        sequences: Each `(time, ...)`.
        labels: int64, `(rows,)`.
        changed: What training makes of a sequence, which is the given row, in an epoch; nothing for validation.
        padding: What stands where there is no step.
        pool_batches: See `LengthOrder`; of the lengths before they are changed.
        longest: What training cuts longer sequences to.
    """

    def __init__(
        self,
        name: str,
        sequences: Sequence[npt.NDArray[Any]],
        labels: npt.NDArray[np.int64],
        changed: Callable[[npt.NDArray[Any], int, int], npt.NDArray[Any]] | None = None,
        *,
        padding: int = 0,
        pool_batches: int = 1,
        longest: int | None = None,
    ) -> None:
        self.name, self.sequences, self.labels, self.changed = name, sequences, torch.from_numpy(labels), changed
        self.padding, self.pool_batches, self.longest = padding, pool_batches, longest

    def order(self, *, batch_size: int, seed: int) -> EpochOrder:
        """Sequences of similar length together."""
        return LengthOrder(self.lengths(), batch_size=batch_size, pool_batches=self.pool_batches, seed=seed)

    def lengths(self) -> npt.NDArray[np.int64]:
        """How long training reads each, `(rows,)`."""
        return np.array([min(len(sequence), self.longest or len(sequence)) for sequence in self.sequences])

    def batch(self, rows: Rows, *, epoch: int) -> Batch:
        """The sequences `(batch, longest time, ...)`, the mask `(batch, longest time)`, and the labels."""
        sequences = [self.sequences[row] for row in rows.tolist()]
        if self.changed is not None:
            sequences = [self.changed(one, epoch, row) for one, row in zip(sequences, rows.tolist(), strict=True)]
        tensors = [torch.from_numpy(one) for one in sequences]
        inputs = torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=self.padding)
        mask = torch.arange(inputs.shape[1]) < torch.tensor([len(one) for one in sequences])[:, None]
        if not inputs.is_floating_point():
            inputs = inputs.long()
        return {self.name: inputs, "attention_mask": mask.long(), "labels": self.labels[torch.from_numpy(rows)]}


class PairedData(BatchData):
    """Labelled sequences, each with one without a label that is about as long, mostly another one in each epoch.

    Both are in order of their lengths; a labelled one that is the k-th of n gets one of those between k / n and
    (k + 1) / n of the others.

    Args:
        labelled: What an epoch reads.
        others: Sequences whose labels are left out.
        seed: With the epoch, it decides who goes with whom.
    """

    def __init__(self, labelled: SequenceData, others: SequenceData, *, seed: int) -> None:
        self.labelled, self.others, self.seed = labelled, others, seed
        self.labels = labelled.labels
        self.rank = np.argsort(np.argsort(labelled.lengths(), kind="stable"))
        self.by_length = np.argsort(others.lengths(), kind="stable")

    def order(self, *, batch_size: int, seed: int) -> EpochOrder:
        """Labelled sequences of similar length together."""
        return self.labelled.order(batch_size=batch_size, seed=seed)

    def partners(self, rows: Rows, epoch: int) -> Rows:
        """The rows of the others that go with labelled ones in an epoch."""
        # The 3 sets this stream apart from those of the order, which have the same seed and epoch.
        drawn = np.random.default_rng((self.seed, epoch, 3)).random(len(self))
        share = (self.rank + drawn) / len(self)
        return self.by_length[(share[rows] * len(self.by_length)).astype(np.int64)]

    def batch(self, rows: Rows, *, epoch: int) -> Batch:
        """The labelled sequences, and under names that begin with `UNLABELLED` the others."""
        others = self.others.batch(self.partners(rows, epoch), epoch=epoch)
        del others["labels"]
        return self.labelled.batch(rows, epoch=epoch) | {UNLABELLED + name: value for name, value in others.items()}


def time_steps(inputs: Batch) -> int:
    """Steps of sequences in a batch, without padding; what the model reads comes first in it."""
    if "attention_mask" in inputs:
        return int(inputs["attention_mask"].sum())
    batch, time_steps = next(iter(inputs.values())).shape[:2]
    return int(batch * time_steps)
