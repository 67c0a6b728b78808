"""Weights that are held for a while, so that what a back end makes of them is made once.

Nothing is kept between two calls otherwise: a weight may be written to in ways that leave no trace.
"""

import threading
import weakref
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeVar

from torch import Tensor
from torch.nn import Parameter
from torch.optim.optimizer import register_optimizer_step_post_hook

Made = TypeVar("Made")


@dataclass(frozen=True)
class _Entry:
    weights: tuple[weakref.ref[Tensor] | None, ...]
    marks: tuple[object, ...]
    memory: tuple[Tensor | None, ...]  # alive, so that no other weight comes to lie at its address
    made: Any


class HeldWeights:
    """A block in which parameters are not written to: without gradients they are brought into order once.

    The recurrence takes no time to pack them in each call then, and steps have the bits of the whole sequence. A
    parameter that torch sees changing (by an optimiser, an operation in place, `load_state_dict`, `.to`) is packed
    again; one that is written to past it (`.data.mul_`, NumPy), or was made in inference mode, is not: close the block
    first. Each thread opens its own; one that was closed and is entered again goes on with what it has, a copy anew.

        layer = urzoo.nn.URLSTM(3, 128)
        with torch.no_grad(), urzoo.nn.HeldWeights():
            state = None
            for piece in torch.randn(100, 4, 2, 3):  # (time, batch, input_size)
                outputs, state = layer(piece, state)
    """

    def __init__(self) -> None:
        self._entries: dict[Hashable, _Entry] = {}
        _count_optimiser_steps()

    def __reduce__(self) -> tuple[type["HeldWeights"], tuple[()]]:
        return HeldWeights, ()

    def __enter__(self) -> "HeldWeights":
        _open.blocks.append(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _open.blocks.pop()

    def made(self, what: Hashable, weights: tuple[Tensor | None, ...], make: Callable[[], Made]) -> Made | None:
        """What `make` makes of the weights: made now, or before of the same; None if some are no parameters.

        Args:
            what: Tells what is made, and for which dtype.
            weights: All that it is made of.
            make: Returns it.
        """
        key = (what, *map(id, weights))
        entry, marks = self._entries.get(key), (_optimiser_steps, *map(_mark, weights))
        if (
            entry is not None
            and entry.marks == marks
            # An identity may have passed to another tensor.
            and all(ref is None or ref() is weight for ref, weight in zip(entry.weights, weights, strict=True))
        ):
            found: Made = entry.made
            return found
        if any(weight is not None and type(weight) is not Parameter for weight in weights):
            return None
        # Parameters that are offloaded come back as others: nothing is kept of those that are gone.
        self._entries = {
            other: entry
            for other, entry in self._entries.items()
            if all(ref is None or ref() is not None for ref in entry.weights)
        }
        refs = tuple(None if weight is None else weakref.ref(weight) for weight in weights)
        memory = tuple(None if weight is None else weight.detach() for weight in weights)
        made = make()
        self._entries[key] = _Entry(refs, marks, memory, made)
        return made


class _Open(threading.local):
    def __init__(self) -> None:
        self.blocks: list[HeldWeights] = []


_open = _Open()


def held_weights() -> HeldWeights | None:
    """The block that is open in this thread, the innermost; None outside of one."""
    return _open.blocks[-1] if _open.blocks else None


_optimiser_steps = 0
_counted = False


def _count_optimiser_steps() -> None:
    """From the first block on: torch does not mark what its fused optimisers write."""
    global _counted
    if not _counted:
        _counted = True
        register_optimizer_step_post_hook(_after_optimiser_step)


def _after_optimiser_step(*_: object) -> None:
    global _optimiser_steps
    _optimiser_steps += 1


def _mark(weight: Tensor | None) -> tuple[int, int] | None:
    """What tells a weight that torch has changed: its memory, and how often it was written to."""
    if weight is None:
        return None
    return weight.data_ptr(), 0 if weight.is_inference() else weight._version
