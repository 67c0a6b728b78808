"""Stream: a layer that reads one step after another, as live input comes, and remembers the state itself."""

from typing import NoReturn

import torch
from torch import Tensor

from urzoo.errors import ShapeError, UsageError
from urzoo.nn.parameters import check_sizes, parameters_of, renew_weights
from urzoo.nn.stack import Stack
from urzoo.recurrence.gates import State, zero_state
from urzoo.recurrence.reference import without_autocast
from urzoo.recurrence.steps import open_steps


class Stream:
    """A URLSTM or URGRU that is called with one step at a time and carries its state.

    The weights are copied as it is made, in the order in which a step reads them, and no work on them is repeated:
    after a change of the layer call `reset` or make a new stream. Memory stays the same however many steps are read.
    There are no gradients and no dropout. One stream is for one thread.

        layer = urzoo.nn.URLSTM(3, 128).eval()
        stream = urzoo.nn.Stream(layer)
        for sample in torch.randn(1000, 1, 3):  # as it comes, (batch, input_size)
            output = stream(sample)  # (batch, hidden_size)

    Args:
        layer: The layer, in one direction.
        batch_size: Rows that are read at once.
        state: As `layer` takes and returns it; zeros when omitted.

    Raises:
        UsageError: `layer` is bidirectional or none of ours.
        ShapeError: `state` does not fit.
    """

    def __init__(self, layer: Stack, batch_size: int = 1, state: Tensor | State | None = None) -> None:
        if not isinstance(layer, Stack):
            raise UsageError(f"layer is a {type(layer).__name__}, expected a urzoo.nn.URLSTM or URGRU.")
        if layer.bidirectional:
            raise UsageError(
                "layer is bidirectional: its backward direction begins at the last step, which a stream does not have."
            )
        check_sizes(batch_size=batch_size)
        self._layer, self._batch = layer, batch_size
        self.reset(state)

    @torch.no_grad()
    def reset(self, state: Tensor | State | None = None) -> None:
        """Begin again, from `state` or from zeros, with the layer's present weights."""
        layer = self._layer
        renew_weights(layer)
        weights = [parameters_of(layer, f"_l{number}") for number in range(layer.num_layers)]
        self._first, shape = weights[0][0].detach(), (layer.num_layers, self._batch, layer.hidden_size)
        if state is None:
            carried = torch.promote_types(self._first.dtype, torch.float32)
            state = zero_state(layer.gating, self._batch, layer.hidden_size, self._first, carried)
            parts = tuple(part.expand(shape) for part in state)
        else:
            parts = (state,) if isinstance(state, Tensor) else tuple(state)
            layer.check_state(parts, shape)
        self._steps = [
            open_steps(each, tuple(part[number] for part in parts), gating=layer.gating, backend=layer.backend)
            for number, each in enumerate(weights)
        ]

    def __reduce__(self) -> NoReturn:
        raise UsageError(
            "a Stream cannot be copied or pickled: its weights lie in the order of this processor; keep stream.state, "
            "and make another with Stream(layer, batch_size, state)."
        )

    @property
    def state(self) -> Tensor | State:
        """The state after the last step, as `layer` returns it; a copy."""
        with without_autocast(self._first.device):  # which would refuse parts of another 16-bit dtype
            parts = tuple(torch.stack(part) for part in zip(*(steps.state for steps in self._steps), strict=True))
        return parts if self._layer.gating.cell == "lstm" else parts[0]

    @torch.no_grad()
    def __call__(self, inputs: Tensor) -> Tensor:
        """Read one step.

        Args:
            inputs: Shape `(batch_size, input_size)`, in the dtype and on the device of the layer.

        Returns:
            The output of the last layer, `(batch_size, hidden_size)`.

        Raises:
            ShapeError: The shape, dtype or device of `inputs` is another.
        """
        first = self._first
        if inputs.shape != (self._batch, first.shape[1]):
            raise ShapeError(
                f"inputs has the shape {tuple(inputs.shape)}, expected {(self._batch, first.shape[1])}: "
                "(batch_size, input_size)."
            )
        if inputs.dtype is not first.dtype or inputs.device != first.device:
            raise ShapeError(
                f"inputs is {str(inputs.dtype).removeprefix('torch.')} on {inputs.device}, expected "
                f"{str(first.dtype).removeprefix('torch.')} on {first.device} as the layer is."
            )
        outputs = inputs
        for steps in self._steps:
            outputs = steps.step(outputs)
        return outputs
