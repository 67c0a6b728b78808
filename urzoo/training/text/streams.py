"""Aligned streams: each row of a batch goes on where it stopped in the batch before, so that a state can be carried.

The documents of an epoch, in an order that the seed and the epoch decide, make one stream of tokens; it is cut into as
many rows of equal length as a batch has. What a step reads is a function of the step alone.
"""

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from urzoo.errors import DataError
from urzoo.training.batches import Batch, Rows, StreamData
from urzoo.training.text.tokens import Ids, Tokens

# Tokens of a source, the numbers of its documents to learn from, and how often they are read an epoch.
WeightedTokens = tuple[Tokens, npt.NDArray[np.int64], int]


class TokenStreams(StreamData):
    """The documents of several sources, read again and again.

    Args:
        parts: What is read.
        segment_tokens: Tokens a row and step.
        seed: With the epoch, it decides the order of the documents.
        steps, batch_size: As for `StreamData`.
    """

    def __init__(
        self, parts: Sequence[WeightedTokens], *, steps: int, batch_size: int, segment_tokens: int, seed: int
    ) -> None:
        self.parts, self.segment_tokens, self.seed = parts, segment_tokens, seed
        self._units = np.array(
            [
                (number, document)
                for number, (_, documents, times) in enumerate(parts)
                for document in np.tile(documents, times).tolist()
            ],
            dtype=np.int64,
        ).reshape(-1, 2)
        self.tokens = sum(
            times * int((tokens.starts[documents + 1] - tokens.starts[documents]).sum())
            for tokens, documents, times in parts
        )
        self.row_tokens = max(0, self.tokens - 1) // batch_size
        super().__init__(steps=steps, batch_size=batch_size, steps_per_epoch=self.row_tokens // segment_tokens)
        if not self.steps_per_epoch:
            raise DataError(
                f"the training text has {self.tokens} tokens, expected more than {batch_size * segment_tokens}: "
                "run.batch_size streams of run.segment_tokens tokens each."
            )
        self._rows = lru_cache(maxsize=1)(self._epoch_rows)

    def batch(self, step: int, rows: Rows) -> Batch:
        """Inputs and the token after each, both `(rows, segment_tokens)` int64, of the given rows of a batch."""
        epoch, segment = divmod(step, self.steps_per_epoch)
        start = segment * self.segment_tokens
        tokens = torch.from_numpy(self._rows(epoch)[rows, start : start + self.segment_tokens + 1].astype(np.int64))
        return {"input_ids": tokens[:, :-1].contiguous(), "shift_labels": tokens[:, 1:].contiguous()}

    def _epoch_rows(self, epoch: int) -> Ids:
        order = np.random.default_rng((self.seed, epoch)).permutation(len(self._units))
        pieces = []
        for part, document in self._units[order].tolist():
            tokens = self.parts[part][0]
            pieces.append(tokens.ids[tokens.starts[document] : tokens.starts[document + 1]])
        stream = np.concatenate(pieces)
        # Each row ends with the token that the next begins with: its last target.
        return np.stack([stream[row * self.row_tokens :][: self.row_tokens + 1] for row in range(self.batch_size)])


def scored_segments(stream: Ids, segment_tokens: int) -> list[tuple[Tensor, Tensor]]:
    """A whole text in segments: inputs and the token after each, both `(1, time)` int64; the last may be shorter."""
    ids = torch.from_numpy(stream.astype(np.int64))[None]
    targets = len(stream) - 1
    edges = pairwise([*range(0, targets, segment_tokens), targets])
    return [(ids[:, start:stop], ids[:, start + 1 : stop + 1]) for start, stop in edges]
