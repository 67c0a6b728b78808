"""The neural cache of a language model: what followed the states that were most like the present one.

The scores over the vocabulary are mixed with those of the tokens read lately, each weighted by how much the state
before it resembles the present state. Names and rare words, which a small model cannot know, come back at once. There
is nothing to train: it acts on a trained model, where the caller asks for it. It lowers the perplexity of a long text
and makes loops of a generated one.

Source: Grave, Joulin and Usunier 2017, arXiv:1612.04426, with the cosine of projected states in place of their product.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

# Likenesses of queries to remembered states that are held at a time: 32 MB in float32.
_HELD_LIKENESSES = 8 * 1024 * 1024


@dataclass(frozen=True)
class History:
    """The last steps of each row, oldest first; a row that has read fewer has its steps at the end.

    Args:
        keys: Unit vectors of the states, `(batch, steps, size)`, float32.
        tokens: The token read at each step, `(batch, steps)`.
        filled: Whether there is such a step, `(batch, steps)`, bool.
    """

    keys: Tensor
    tokens: Tensor
    filled: Tensor

    @classmethod
    def empty(cls, batch_size: int, size: int, device: torch.device) -> "History":
        """No steps."""
        ids = torch.zeros(batch_size, 0, dtype=torch.int64, device=device)
        return cls(torch.zeros(batch_size, 0, size, dtype=torch.float32, device=device), ids, ids.bool())

    def changed(self, change: Callable[[Tensor], Tensor]) -> "History":
        """`change` of each part."""
        return History(change(self.keys), change(self.tokens), change(self.filled))

    def followed_by(self, keys: Tensor, tokens: Tensor, mask: Tensor | None) -> tuple["History", Tensor]:
        """This and the steps of new inputs, and where those stand in it: `(batch, new steps)`, of padding anywhere.

        Args:
            keys: As here, of the new steps.
            tokens: As here, of the new steps.
            mask: False at padding, `(batch, new steps)`; none when omitted.
        """
        before, new = self.tokens.shape[1], tokens.shape[1]
        filled = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
        joined = History(
            torch.cat([self.keys, keys], dim=1),
            torch.cat([self.tokens, tokens], dim=1),
            torch.cat([self.filled, filled], dim=1),
        )
        if mask is None:
            return joined, torch.arange(before, before + new, device=tokens.device).expand_as(tokens)
        # Padding goes to the front, so that each step stands beside the one it follows.
        order = joined.filled.to(torch.uint8).argsort(dim=1, stable=True)
        places = torch.empty_like(order).scatter_(
            1, order, torch.arange(before + new, device=order.device).expand_as(order)
        )
        return (
            History(
                joined.keys.gather(1, order[..., None].expand_as(joined.keys)),
                joined.tokens.gather(1, order),
                joined.filled.gather(1, order),
            ),
            places[:, before:],
        )

    def last(self, steps: int) -> "History":
        """The last steps alone."""
        # A view would keep all of a long text; one of a few steps more is cheaper than a copy at each step.
        view = self.tokens.shape[1] <= 2 * steps
        return self.changed(lambda part: part[:, -steps:] if view else part[:, -steps:].clone())


def keys_of(hidden: Tensor) -> Tensor:
    """Unit vectors `(batch, time, size)` in float32 by which states are compared."""
    return nn.functional.normalize(hidden.float(), dim=-1)


def mixed_scores(
    scores: Tensor, history: History, places: Tensor, *, size: int, weight: float, sharpness: float
) -> Tensor:
    """Log-probabilities of the next token, `(batch, queries, vocabulary)`, with those of the history mixed in.

    Args:
        scores: The model's own, unnormalised or not, `(batch, queries, vocabulary)`, float32.
        history: The steps up to the last query, or beyond; a query sees none after itself.
        places: Where each query stands in it, `(batch, queries)`.
        size: How many steps before it a query looks back on.
        weight: Of the history in the mixture, in rows that have one.
        sharpness: What likenesses, from -1 to 1, are multiplied with before their softmax.
    """
    batch, queries = places.shape
    # So many queries at most see twice as many steps as one of them.
    at_a_time = max(1, min(size, _HELD_LIKENESSES // (2 * batch * size)))
    parts = [
        _mixed(part, history, places[:, start : start + at_a_time], size, weight, sharpness)
        for start, part in zip(range(0, queries, at_a_time), torch.split(scores, at_a_time, dim=1), strict=True)
    ]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def _mixed(scores: Tensor, history: History, places: Tensor, size: int, weight: float, sharpness: float) -> Tensor:
    own = scores.log_softmax(dim=-1)
    first, last = max(0, int(places.min()) - size), int(places.max())
    if first == last:
        return own
    queries = history.keys.gather(1, places[..., None].expand(*places.shape, history.keys.shape[-1]))
    # In 16 bits, as autocast would have it, likenesses near one could not be told apart.
    with torch.autocast(own.device.type, enabled=False):
        likeness = torch.matmul(queries, history.keys[:, first:last].mT) * sharpness
    # The token after a remembered step must have been read by the time of the query.
    steps = torch.arange(first, last, device=places.device)
    seen = (steps < places[..., None]) & (steps >= places[..., None] - size) & history.filled[:, None, first:last]
    any_seen = seen.any(dim=-1, keepdim=True)
    # Finite in place of minus infinity, here and below: its gradients would be NaN.
    lowest = torch.finfo(torch.float32).min
    share = likeness.masked_fill(~seen, lowest).softmax(dim=-1).masked_fill(~seen, 0.0)
    following = history.tokens[:, None, first + 1 : last + 1].expand_as(share)
    pointed = torch.zeros_like(own).scatter_add(2, following, share).clamp_min(torch.finfo(torch.float32).tiny)
    mixture = torch.logaddexp(own + math.log1p(-weight), pointed.log() + math.log(weight))
    return torch.where(any_seen, mixture, own)
