"""Adversarial training of classifiers of text: each step also learns from a worse version of its batch.

The worse version moves the embedded tokens of each text a little in the direction in which the loss grows fastest;
that of texts without labels, in the direction in which the answer changes most (virtual adversarial training).
Source: Miyato et al. 2017, arXiv:1605.07725, there with embeddings normalised to unit variance; here the distance is
relative to the length of the embedded text instead, which needs no normalised embeddings.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
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

    def disturbing(self, mask: Tensor) -> AbstractContextManager[Any]:
        """Passes in this block, with the same texts, read the disturbed ones; `mask`, `(batch, time)`, is theirs."""
        embedded = self._embedded
        assert embedded is not None, "nothing was watched"
        assert embedded.grad is not None, "no backward pass was watched"
        disturbance = _scaled(embedded.grad, embedded.detach(), mask, self.radius)
        self._embedded = None
        return self.embedding.register_forward_hook(lambda *given: given[-1] + disturbance)

    def _remember(self, *given: Any) -> None:
        self._embedded = given[-1]
        given[-1].retain_grad()


def virtual_adversarial_loss(
    model: nn.Module, embedding: nn.Module, inputs: Mapping[str, Tensor], *, radius: float, seed: int
) -> Tensor:
    """How far a classifier's answers turn when texts are moved a little to where they turn most; it needs no labels.

    That is the divergence of Kullback and Leibler of the answers to the moved texts from those to the texts as they
    are. The direction is found by one step of power iteration as in the source above, section 3, but from a random
    change of the logits, not from what a random movement brings about: that is less than 16-bit arithmetic tells apart,
    and some texts would not move at all.

    Args:
        model: Gives logits; as it is in training, among several processes too.
        embedding: The model's, whose output is `(batch, time, size)`.
        inputs: `input_ids` and `attention_mask`, both `(batch, time)`.
        radius: How far to move a text, relative to the Euclidean length of all its embedded tokens together.
        seed: Of the dropout, the same in each pass so that only the movement tells the answers apart, and of the
            direction to begin with.

    Returns:
        The mean over the texts, in nats, `()`.
    """
    seen: list[Tensor] = []

    def apart(*given: Any) -> Tensor:
        seen.append(given[-1].detach().requires_grad_())
        return seen[-1]

    def answers(network: nn.Module) -> Tensor:
        torch.manual_seed(seed)
        logits: Tensor = network(**inputs).logits
        return logits.float().log_softmax(-1)

    with embedding.register_forward_hook(apart):
        # Without the exchange among processes, which this pass has no part in.
        unmoved = answers(getattr(model, "module", model))
    (embedded,) = seen
    likely = unmoved.detach().exp()
    change = torch.randn(likely.shape, generator=torch.Generator().manual_seed(seed)).to(likely)
    # Its product with the answers' Fisher information.
    change = likely * (change - (likely * change).sum(-1, keepdim=True))
    (direction,) = torch.autograd.grad((change * unmoved).sum(), embedded)
    movement = _scaled(direction, embedded.detach(), inputs["attention_mask"], radius)
    with embedding.register_forward_hook(lambda *given: given[-1] + movement):
        return nn.functional.kl_div(answers(model), unmoved.detach(), log_target=True, reduction="batchmean")


def _scaled(direction: Tensor, embedded: Tensor, mask: Tensor, radius: float) -> Tensor:
    """A direction for each text, `(batch, time, size)`, at the length that the radius gives it."""
    # Padding is no part of a text: a language model's embedding of it is longer than that of most tokens.
    length = (embedded * mask.to(embedded.device)[..., None]).flatten(1).norm(dim=1)
    # Where no direction is better than another, there is nothing to move.
    steepness = direction.flatten(1).norm(dim=1).clamp_min(1e-30)
    scaled: Tensor = (radius * length / steepness)[:, None, None] * direction
    return scaled
