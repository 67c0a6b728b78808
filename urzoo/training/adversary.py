"""Adversarial training of classifiers of text: each step also learns from a worse version of its batch.

The worse version moves the embedded tokens of each text a little in the direction in which the loss grows fastest.
Source: Miyato et al. 2017, arXiv:1605.07725, there with embeddings normalised to unit variance; here the distance is
relative to the length of the embedded text instead, which needs no normalised embeddings.
"""

from contextlib import AbstractContextManager
from typing import Any

from torch import Tensor, nn


class Adversary:
    """Watches an embedding in one pass and disturbs its outputs in the next.

    Args:
        embedding: Gives `(batch, time, size)`.
        radius: How far to move a text, relative to the Euclidean length of all its embedded tokens together.
    """

    def __init__(self, embedding: nn.Module, radius: float) -> None:
        self.embedding = embedding
        self.radius = radius
        self._embedded: Tensor | None = None

    def watching(self) -> AbstractContextManager[Any]:
        """Passes forward and backward in this block are remembered; those of the last one count."""
        return self.embedding.register_forward_hook(self._remember)

    def disturbing(self) -> AbstractContextManager[Any]:
        """Passes in this block, with the same texts, read the disturbed ones."""
        embedded = self._embedded
        assert embedded is not None, "nothing was watched"
        assert embedded.grad is not None, "no backward pass was watched"
        direction = embedded.grad
        length = embedded.detach().flatten(1).norm(dim=1)
        # Where nothing grows the loss, there is nothing to move.
        steepness = direction.flatten(1).norm(dim=1).clamp_min(1e-30)
        disturbance = (self.radius * length / steepness)[:, None, None] * direction
        self._embedded = None
        return self.embedding.register_forward_hook(lambda *given: given[-1] + disturbance)

    def _remember(self, *given: Any) -> None:
        self._embedded = given[-1]
        given[-1].retain_grad()
