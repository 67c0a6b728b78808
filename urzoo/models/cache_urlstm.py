"""The state a recurrent language model carries from one call to the next: its whole memory of the past.

It takes the place of transformers' key-value cache, as the argument `cache`, but does not grow: two vectors
a layer for the LSTM, one for the GRU, however many tokens were read; and where a neural cache is asked for,
the last steps that it looks back on, and no more.
"""

from collections.abc import Callable
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.utils._pytree import GetAttrKey, register_pytree_node

from urzoo.errors import ShapeError, UsageError
from urzoo.models.neural_cache_urlstm import History


class URLSTMCache:
    """The state after the tokens read so far, one entry a layer.

    A model given a cache replaces the states in it by those after its inputs (new tensors; the old ones
    are not written to) and returns the same object. `clone` beforehand to keep a point to return to.

    Args:
        num_layers: Recurrent layers of the model.
        hidden_size: Units of each layer.
        parts: State vectors a layer: 2 for the LSTM (hidden, cell), 1 for the GRU (hidden).
    """

    # What transformers' generate asks a cache for.
    is_compileable = False
    is_croppable = False
    is_linear = (True,)  # only the inputs that follow are given with it

    def __init__(self, num_layers: int, hidden_size: int, parts: int) -> None:
        self.num_layers = num_layers
        self.hidden_size = hidden_size
        self.parts = parts
        self.seen_tokens: int | Tensor = 0  # a tensor where an exported program has counted
        self.states: list[tuple[Tensor, ...] | None] = [None] * num_layers
        self.history: History | None = None

    @property
    def batch_size(self) -> int | None:
        """Rows of the states; None before the first tokens."""
        return None if self.states[0] is None else self.states[0][0].shape[0]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Steps read so far, padding included."""
        return int(self.seen_tokens) if self.states[layer_idx] is not None else 0

    def check(self, num_layers: int, hidden_size: int, parts: int, batch_size: int) -> None:
        """Refuse a cache that another model or another batch has filled.

        Raises:
            UsageError: The layers, units or cells differ from the model's.
            ShapeError: The batch differs from the inputs'.
        """
        if (self.num_layers, self.hidden_size, self.parts) != (num_layers, hidden_size, parts):
            raise UsageError(
                f"cache has {self.num_layers} layers of {self.hidden_size} units, {self.parts} state vectors, "
                f"expected {num_layers} of {hidden_size} with {parts}: it is of another model. Omit it."
            )
        if self.batch_size not in (None, batch_size):
            raise ShapeError(
                f"cache holds {self.batch_size} rows, but the inputs have {batch_size}. "
                "Give one row of inputs for each row of the cache, or omit it to start afresh."
            )

    def reset(self) -> None:
        """Forget everything: the next call starts from zeros, with any batch size."""
        self.seen_tokens = 0
        self.states = [None] * self.num_layers
        self.history = None

    def reset_rows(self, rows: Tensor) -> None:
        """Forget what the rows have read for which `rows`, `(batch,)` of bool, is true: they start from zeros."""
        self._replace(lambda part: part.masked_fill(rows.view(-1, *[1] * (part.dim() - 1)), 0))

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Take the rows `beam_idx` in place of the present ones, for beam search."""
        self._replace(lambda part: part.index_select(0, beam_idx.to(part.device)))

    def crop(self, max_length: int) -> NoReturn:
        """Refused: a state cannot forget the last of what it has read.

        Raises:
            UsageError: Always.
        """
        raise UsageError(
            f"the cache was to be cut to {max_length} steps, as assisted generation does, but a state holds no single "
            "steps; omit assistant_model, or clone() the cache beforehand."
        )

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep the rows `indices`."""
        self.reorder_cache(indices)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat each row, for several sequences from one prompt."""
        self._replace(lambda part: part.repeat_interleave(repeats, dim=0))

    def detach(self) -> "URLSTMCache":
        """A cache of the same states cut off from their graph, for truncated back-propagation."""
        other = self.clone()
        other._replace(torch.Tensor.detach)
        return other

    def clone(self) -> "URLSTMCache":
        """A second cache at the same point; what a model does with one leaves the other as it is."""
        other = URLSTMCache(self.num_layers, self.hidden_size, self.parts)
        other.seen_tokens = self.seen_tokens
        other.states = list(self.states)
        other.history = self.history
        return other

    def to(self, device: torch.device | str) -> "URLSTMCache":
        """A cache of the same states on another device."""
        other = self.clone()
        other._replace(lambda part: part.to(device))
        return other

    def _replace(self, change: Callable[[Tensor], Tensor]) -> None:
        self.states = [None if state is None else tuple(change(part) for part in state) for state in self.states]
        if self.history is not None:
            self.history = self.history.changed(change)


_PARTS = ("states", "history", "seen_tokens")


def _flatten(cache: URLSTMCache) -> tuple[list[Any], tuple[int, int, int]]:
    history = cache.history
    kept = None if history is None else (history.keys, history.tokens, history.filled)
    # A plain number would be fixed in an exported program, which then went on from states after so many steps alone.
    seen = torch.tensor(cache.seen_tokens) if type(cache.seen_tokens) is int else cache.seen_tokens
    return [cache.states, kept, seen], (cache.num_layers, cache.hidden_size, cache.parts)


def _flatten_with_keys(cache: URLSTMCache) -> tuple[list[tuple[Any, Any]], tuple[int, int, int]]:
    content, sizes = _flatten(cache)
    return [(GetAttrKey(name), part) for name, part in zip(_PARTS, content, strict=True)], sizes


def _unflatten(content: Any, sizes: tuple[int, int, int]) -> URLSTMCache:
    cache = URLSTMCache(*sizes)
    states, kept, cache.seen_tokens = content
    cache.states = list(states)
    cache.history = None if kept is None else History(*kept)
    return cache


# So that torch.export sees the tensors in it, as transformers does with its own caches.
register_pytree_node(
    URLSTMCache,
    _flatten,
    _unflatten,
    serialized_type_name="urzoo.URLSTMCache",
    flatten_with_keys_fn=_flatten_with_keys,
)
