"""Packed weights that inference keeps from call to call, for steps and for whole sequences.

Packing takes longer than a step of few rows. So what was packed is kept while the parameters stand: the same
tensor objects, at the same address, with the same version counters. Whatever writes to a parameter through torch
(`load_state_dict`, `copy_`) raises its counter; `parameter.data = other` moves its address. Fused optimisers raise no
counter, so that a step of any optimiser ends the time of all that is kept. Only writes through an alias that torch does
not count (`parameter.data.mul_(2)`, a NumPy view) go unseen, as they do by autograd.

Only weights that are `torch.nn.Parameter`s are packed, and at first sight: weights that a caller makes anew for every
step would be packed for every step. Which way a call takes hence depends on its arguments alone, as do its bits.
An entry goes when its recurrent weight dies. No lock is held at any time, so that a fork leaves nothing locked:
entries do not change once they stand, and two threads that pack the same weights at once do so twice.
"""

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.nn import Parameter
from torch.optim.optimizer import register_optimizer_step_post_hook

Key = tuple[int, object]

_optimiser_steps = 0


def _count_step(*_: object) -> None:
    global _optimiser_steps
    _optimiser_steps += 1


register_optimizer_step_post_hook(_count_step)


@dataclass(frozen=True)
class _Kept:
    """What was packed from which tensors."""

    owners: tuple["weakref.ref[Tensor] | None", ...]
    stamps: tuple[tuple[int, int] | int | None, ...]
    # The storage that the stamps speak of: while it is held, no other tensor can come to its address.
    aliases: tuple[Tensor | None, ...]
    packed: Tensor

    def stands(self, tensors: Sequence[Tensor | None], stamps: tuple[tuple[int, int] | int | None, ...]) -> bool:
        return self.stamps == stamps and all(
            (None if owner is None else owner()) is tensor for owner, tensor in zip(self.owners, tensors, strict=True)
        )


_kept: dict[Key, _Kept] = {}


def packed_weights(kind: object, tensors: Sequence[Tensor | None], pack: Callable[[], Tensor]) -> Tensor | None:
    """What `pack` makes of the tensors, kept from an earlier call where they stand; None where they cannot be kept.

    Args:
        kind: Everything but the tensors that the result depends on; hashable.
        tensors: The recurrent weight and the input weight, then what may be None or no parameter.
        pack: Called where the tensors were not seen before or do not stand.
    """
    if not all(type(tensor) is Parameter for tensor in tensors[:2]):
        return None
    # Tensors made in inference mode have no version counter.
    if any(
        tensor is not None and (type(tensor) not in (Tensor, Parameter) or tensor.is_inference()) for tensor in tensors
    ):
        return None
    versions = (None if tensor is None else (tensor.data_ptr(), tensor._version) for tensor in tensors)
    stamps = (_optimiser_steps, *versions)
    first = tensors[0]
    assert first is not None
    key = (id(first), kind)
    found = _kept.get(key)
    if found is None or not found.stands(tensors, stamps):
        # The stamps are older than what is packed: a write meanwhile is seen by the next call.
        dies = weakref.ref(first, lambda _: _kept.pop(key, None))
        others = (None if tensor is None else weakref.ref(tensor) for tensor in tensors[1:])
        aliases = tuple(None if tensor is None else tensor.detach() for tensor in tensors)
        found = _kept[key] = _Kept((dies, *others), stamps, aliases, pack())
    return found.packed


def release() -> None:
    """Forget all that is kept."""
    _kept.clear()
