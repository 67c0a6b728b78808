"""Steps with weights that are packed once, for as long as their owner keeps them; `urzoo.nn.Stream` is one.

The weights are those of the moment in which they were packed. The state lies in memory of its own, which every step
overwrites; so one object is for one thread.
"""

import torch
from torch import Tensor

from urzoo.recurrence.cpu.library import arguments_of, current
from urzoo.recurrence.cpu.passes import FusedKind, options, pack_weights, step_threads
from urzoo.recurrence.gates import Gating, State, complete_bias


class PackedSteps:
    """One recurrent layer that carries its state from step to step.

    Args:
        weights: Input weight, recurrent weight, bias and gate bias, as for `urzoo.recurrence.step`.
        gating: What the cell computes.
        dtype: That of the products.
        state: The state before the first step, in the dtypes in which it is carried; copied.
    """

    def __init__(
        self,
        weights: tuple[Tensor, Tensor, Tensor | None, Tensor | None],
        gating: Gating,
        dtype: torch.dtype,
        state: State,
    ) -> None:
        input_weight, recurrent_weight, bias, gate_bias = weights
        kind = FusedKind(gating, reverse=False, dtype=dtype)
        exact = (None if tensor is None else tensor.float() for tensor in (bias, gate_bias))
        self._packed = pack_weights(kind, input_weight, recurrent_weight, complete_bias(gating, *exact))
        self._state = tuple(
            part.to(carried).clone(memory_format=torch.contiguous_format)
            for part, carried in zip(state, kind.state_dtypes, strict=True)
        )
        self._shape, self._dtype = state[0].shape, dtype
        self._function, self._library = kind.function("forward"), current()
        places = dict(zip(("hidden", "cell"), self._state, strict=False))
        self._arguments = arguments_of(
            **options(kind),
            batch=self._shape[0],
            time=1,
            input_size=input_weight.shape[1],
            hidden_size=self._shape[1],
            threads=step_threads(recurrent_weight.numel(), self._shape[0]),
            packed=self._packed,
            **places,
            # The pass copies the state before it writes the one after.
            **{f"final_{name}": part for name, part in places.items()},
        )

    def step(self, inputs: Tensor) -> Tensor:
        """The output `(batch, hidden)` after one step; inputs `(batch, input_size)`."""
        if inputs.dtype is not self._dtype or not inputs.is_contiguous() or inputs.is_neg():
            inputs = inputs.to(self._dtype).resolve_neg().contiguous()
        outputs = torch.empty(self._shape, dtype=self._dtype, device="cpu")
        self._arguments.inputs = inputs.data_ptr()
        self._arguments.outputs = outputs.data_ptr()
        self._library.call(self._function, self._arguments)
        return outputs

    @property
    def state(self) -> State:
        """A copy of the state after the last step."""
        return tuple(part.clone() for part in self._state)
