"""Many steps with the weights of one moment, which a back end may bring into its own order once."""

from typing import Protocol

import torch
from torch import Tensor

from urzoo.recurrence.arguments import checked_state, product_dtype
from urzoo.recurrence.gates import Gating, State
from urzoo.recurrence.scan import Backend, chosen_backend

Weights = tuple[Tensor, Tensor, Tensor | None, Tensor | None]


class Steps(Protocol):
    """A recurrent layer that carries its state; see `urzoo.recurrence.cpu.packed.PackedSteps`."""

    def step(self, inputs: Tensor) -> Tensor:
        """The output `(batch, hidden)` after one step; inputs `(batch, input_size)`."""

    @property
    def state(self) -> State:
        """A copy of the state after the last step."""


class PlainSteps:
    """`Steps` of any back end, with a copy of the weights."""

    def __init__(self, weights: Weights, gating: Gating, dtype: torch.dtype, state: State, backend: Backend) -> None:
        input_weight, recurrent_weight, bias, gate_bias = weights
        biases = (None if one is None else one.clone() for one in (bias, gate_bias))
        self._weights: Weights = (input_weight.clone(), recurrent_weight.clone(), next(biases), next(biases))
        self._gating, self._dtype, self._backend = gating, dtype, backend
        self._state = tuple(part.clone() for part in state)

    def step(self, inputs: Tensor) -> Tensor:
        """See `Steps`."""
        # In the dtype of its beginning, whatever autocast says by now.
        self._state = self._backend.step(
            inputs, *self._weights, self._state, gating=self._gating, dtype=self._dtype, named=True
        )
        return self._state[0].to(self._dtype, copy=True)  # which its owner may write to

    @property
    def state(self) -> State:
        """See `Steps`."""
        return tuple(part.clone() for part in self._state)


@torch.no_grad()
def open_steps(weights: Weights, state: State, *, gating: Gating, backend: str | None = None) -> Steps:
    """Begin a run of steps with a copy of the weights; the arguments are those of `step`.

    Raises:
        BackendError: `backend` is unknown, or cannot run on such weights.
        ShapeError: The shapes, dtypes or devices of weights and state do not agree.
    """
    chosen, dtype = chosen_backend(weights[0], gating, backend), product_dtype(weights[0])
    # As any call is checked: a back end reads memory of the sizes that it is told.
    inputs = weights[0].new_empty(state[0].shape[0], weights[0].shape[-1])
    state = checked_state(inputs, *weights, state, gating, dtype)
    packed = getattr(chosen, "PackedSteps", None)
    if packed is None:
        return PlainSteps(weights, gating, dtype, state, chosen)
    steps: Steps = packed(weights, gating, dtype, state)
    return steps
