"""ClassifierStream: a classifier that reads a sequence as it comes and can be asked for its scores at any time."""

# mypy: disable-error-code="no-untyped-call"
# (transformers is annotated in part only)

import copy
from typing import Any

import torch
from torch import Tensor

from urzoo.errors import ShapeError, UsageError
from urzoo.models.cache_urlstm import URLSTMCache
from urzoo.models.modeling_urlstm import URLSTMPreTrainedModel
from urzoo.models.pooling_urlstm import PooledSoFar
from urzoo.nn.parameters import renew_weights
from urzoo.recurrence.held import HeldWeights


class ClassifierStream:
    """Live input for a classifier in one direction: pixels row by row, samples of a sensor, tokens.

    The model is copied as the stream is made, and its weights are packed once: after a change of the model call
    `reset`. The state is carried, so that no step is read twice, and memory stays the same however many are read. In
    float32 the pooled outputs, of which the scores are made, have the bits of a call with the whole sequence, where
    that is longer than one step. One stream is for one thread.

        model = urzoo.load("urlstm-128-smnist")
        stream = model.stream()
        for row in torch.rand(28, 1, 28, 1):  # as it comes, (batch, time, channels)
            stream.read(row)
        print(stream.logits.argmax(-1))

    Raises:
        UsageError: The model is bidirectional.
    """

    def __init__(self, model: URLSTMPreTrainedModel) -> None:
        if model.config.bidirectional:
            raise UsageError(
                "the model is bidirectional: its backward direction begins at the last step, which live input does "
                "not have; give it the whole sequence, or take a model in one direction."
            )
        self._model = model
        self.reset()

    def reset(self) -> None:
        """Begin again, with the model's present weights."""
        renew_weights(self._model)  # those of a call with gradients cannot be copied
        self._copy: Any = copy.deepcopy(self._model).eval()
        self._held, self._cache = HeldWeights(), self._new_cache()
        self._pooled = PooledSoFar(self._copy.config)

    def _new_cache(self) -> URLSTMCache:
        config = self._model.config
        return URLSTMCache(config.num_layers, config.hidden_size, 1 if config.cell == "gru" else 2)

    @torch.no_grad()
    def read(self, steps: Tensor) -> None:
        """Read the steps that follow.

        Args:
            steps: One or several steps of each row, `(batch, time, features)` as the model takes them, or token ids
                `(batch, time)`; always of as many rows.

        Raises:
            ShapeError: The shape does not fit the model, or the rows are more or fewer than before.
            UsageError: An id is outside the vocabulary.
        """
        before = self._cache.batch_size
        if before is not None and steps.shape[0] != before:
            raise ShapeError(
                f"steps has {steps.shape[0]} rows, expected {before} as in the steps before; call reset() to begin "
                "with others."
            )
        given = {"inputs_embeds" if self._model.config.vocab_size is None else "input_ids": steps}
        with self._held:
            outputs = self._copy.model(**given, cache=self._cache, use_cache=True, return_dict=True)
        self._pooled.add(outputs.last_hidden_state)

    @property
    @torch.no_grad()
    def logits(self) -> Tensor:
        """The scores `(batch, labels)` of what was read so far.

        Raises:
            UsageError: Nothing was read yet.
        """
        if self._cache.batch_size is None:
            raise UsageError("nothing was read yet, so there are no scores; call read(steps) first.")
        scores: Tensor = self._copy.head(self._pooled.value)
        return scores
