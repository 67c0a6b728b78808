"""A stack of recurrent layers of either cell: parameters, layouts, packed sequences, directions, state.

A packed sequence runs as a padded one under a mask, so that both take the same path. State dicts follow
torch's names, except that one bias replaces torch's two (`bias_l0` is the sum of `bias_ih_l0` and `bias_hh_l0`)
and the gate bias has an entry of its own, `forget_bias_l0`.
"""

import warnings
from typing import NoReturn

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from urzoo.errors import ShapeError, UsageError
from urzoo.nn.parameters import check_sizes, empty_parameters, initialise, parameters_of, refuse_scripting
from urzoo.recurrence.gates import Gating, State, is_number
from urzoo.recurrence.scan import check_options, scan


class Stack(nn.Module):
    """What URLSTM and URGRU share; the gating says which cell they are made of."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int,
        gating: Gating,
        *,
        bias: bool,
        batch_first: bool,
        dropout: float,
        bidirectional: bool,
        train_gate_bias: bool,
        max_time: int | None,
        backend: str | None,
        save: str,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
    ) -> None:
        super().__init__()
        check_sizes(input_size=input_size, hidden_size=hidden_size, num_layers=num_layers)
        if not is_number(dropout) or not 0.0 <= dropout <= 1.0:
            raise UsageError(f"dropout is {dropout!r}, expected a probability from 0 to 1.")
        if dropout > 0 and num_layers == 1:
            warnings.warn(
                f"dropout is {dropout} with num_layers=1: it acts between layers only, so it has no effect here.",
                stacklevel=3,
            )
        check_options(backend, save)
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.bias = bias
        self.batch_first = batch_first
        self.dropout = float(dropout)
        self.bidirectional = bidirectional
        self.proj_size = 0
        self.gating = gating
        self.train_gate_bias = train_gate_bias
        self.max_time = max_time
        self.backend = backend
        self.save = save
        for layer in range(num_layers):
            layer_input = input_size if layer == 0 else hidden_size * self.num_directions
            for suffix in self.suffixes(layer):
                parameters = empty_parameters(
                    gating,
                    layer_input,
                    hidden_size,
                    bias=bias,
                    train_gate_bias=train_gate_bias,
                    device=device,
                    dtype=dtype,
                )
                for name, parameter in parameters.items():
                    self.register_parameter(name + suffix, parameter)
        self.reset_parameters()

    @property
    def num_directions(self) -> int:
        """2 when bidirectional, else 1."""
        return 2 if self.bidirectional else 1

    @property
    def gate(self) -> str:
        """The paper's two letters."""
        return self.gating.name

    def reset_parameters(self) -> None:
        """Draw the parameters again: see `urzoo.nn.parameters.initialise`."""
        for layer in range(self.num_layers):
            for suffix in self.suffixes(layer):
                initialise(self.gating, *parameters_of(self, suffix), max_time=self.max_time)

    @property
    def all_weights(self) -> list[list[Tensor]]:
        """The parameters of each direction of each layer, as torch.nn.LSTM lists them, the gate bias last."""
        suffixes = [suffix for layer in range(self.num_layers) for suffix in self.suffixes(layer)]
        return [[tensor for tensor in parameters_of(self, suffix) if tensor is not None] for suffix in suffixes]

    def __prepare_scriptable__(self) -> NoReturn:  # what torch.jit.script calls first
        refuse_scripting(self)

    def flatten_parameters(self) -> None:
        """Nothing to do; here because callers of torch.nn.LSTM call it."""

    def extra_repr(self) -> str:
        """The arguments that tell this module from another."""
        said = [f"{self.input_size}, {self.hidden_size}"]
        defaults = {"num_layers": 1, "bias": True, "batch_first": False, "dropout": 0.0, "bidirectional": False}
        said += [f"{name}={value!r}" for name in defaults if (value := getattr(self, name)) != defaults[name]]
        said.append(f"gate={self.gating.name!r}")
        if not self.gating.tie_input_gate:
            said.append("tie_input_gate=False")
        if not self.gating.refine_offset:
            said.append("refine_offset=False")
        if not self.train_gate_bias:
            said.append("train_gate_bias=False")
        for name in ("max_time", "backend"):
            if (value := getattr(self, name)) is not None:
                said.append(f"{name}={value!r}")
        if self.save != "activations":
            said.append(f"save={self.save!r}")
        return ", ".join(said)

    def suffixes(self, layer: int) -> list[str]:
        """The ends of the parameters' names in one layer, forward direction first."""
        return [f"_l{layer}", f"_l{layer}_reverse"][: self.num_directions]

    def _scan(
        self, inputs: Tensor | PackedSequence, state: State | None, mask: Tensor | None
    ) -> tuple[Tensor | PackedSequence, State]:
        """All layers over whatever `forward` was given."""
        if not isinstance(inputs, PackedSequence):
            return self._run(inputs, state, mask)
        if mask is not None:
            raise UsageError("mask was given with a packed sequence, which has lengths of its own; omit mask.")
        return self._run_packed(inputs, state)

    def _run(self, inputs: Tensor, state: State | None, mask: Tensor | None) -> tuple[Tensor, State]:
        """All layers over a tensor in the module's layout, batched or not."""
        batched = inputs.dim() == 3
        if inputs.dim() not in (2, 3):
            layout = "(batch, time, input_size)" if self.batch_first else "(time, batch, input_size)"
            raise ShapeError(
                f"input has {inputs.dim()} dimensions, expected 3: {layout}, or 2: (time, input_size); "
                f"its shape is {tuple(inputs.shape)}."
            )
        if inputs.shape[-1] != self.input_size:
            raise ShapeError(
                f"input has {inputs.shape[-1]} features in its last dimension, expected input_size={self.input_size}; "
                f"its shape is {tuple(inputs.shape)}."
            )
        if inputs.shape[1 if batched and self.batch_first else 0] == 0:
            raise ShapeError(f"input has no time steps, expected at least 1; its shape is {tuple(inputs.shape)}.")
        if mask is not None and mask.shape != inputs.shape[:-1]:
            raise ShapeError(
                f"mask has the shape {tuple(mask.shape)}, expected {tuple(inputs.shape[:-1])}: that of input "
                "without its last dimension."
            )
        batch_dim = 0 if self.batch_first else 1
        if not batched:
            inputs = inputs.unsqueeze(batch_dim)
            mask = None if mask is None else mask.unsqueeze(batch_dim)
            if state is not None:
                self.check_state(state, (self.num_layers * self.num_directions, self.hidden_size))
                state = tuple(part.unsqueeze(1) for part in state)
        if not self.batch_first:
            inputs = inputs.transpose(0, 1)
            mask = None if mask is None else mask.transpose(0, 1)
        outputs, state = self._run_layers(inputs, state, mask)
        if not self.batch_first:
            outputs = outputs.transpose(0, 1)
        if not batched:
            outputs = outputs.squeeze(batch_dim)
            state = tuple(part.squeeze(1) for part in state)
        return outputs, state

    def _run_packed(self, packed: PackedSequence, state: State | None) -> tuple[PackedSequence, State]:
        """All layers over a packed sequence; the state is in the order of the rows before packing."""
        if packed.data.shape[-1] != self.input_size:
            raise ShapeError(
                f"input has {packed.data.shape[-1]} features in its last dimension, expected "
                f"input_size={self.input_size}; the shape of its packed data is {tuple(packed.data.shape)}."
            )
        inputs, lengths = pad_packed_sequence(packed, batch_first=True)
        steps = torch.arange(inputs.shape[1], device=lengths.device)
        mask = (steps < lengths[:, None]).to(inputs.device)
        outputs, state = self._run_layers(inputs, state, mask)
        if packed.sorted_indices is not None:
            outputs, mask = outputs[packed.sorted_indices], mask[packed.sorted_indices]
        # Packed data are the real steps, time by time, rows from the longest to the shortest.
        data = outputs.transpose(0, 1)[mask.transpose(0, 1)]
        return PackedSequence(data, packed.batch_sizes, packed.sorted_indices, packed.unsorted_indices), state

    def _run_layers(self, inputs: Tensor, state: State | None, mask: Tensor | None) -> tuple[Tensor, State]:
        """All layers over `(batch, time, input_size)`; state parts are `(layers * directions, batch, hidden)`."""
        if state is not None:
            self.check_state(state, (self.num_layers * self.num_directions, inputs.shape[0], self.hidden_size))
        finals: list[State] = []
        outputs = inputs
        for layer in range(self.num_layers):
            if layer > 0 and self.dropout > 0:
                outputs = F.dropout(outputs, self.dropout, self.training)
            layer_inputs, directions = outputs, []
            for direction, suffix in enumerate(self.suffixes(layer)):
                initial = None if state is None else tuple(part[len(finals)] for part in state)
                outputs, final = scan(
                    layer_inputs,
                    *parameters_of(self, suffix),
                    initial,
                    gating=self.gating,
                    mask=mask,
                    reverse=direction == 1,
                    backend=self.backend,
                    save=self.save,
                )
                directions.append(outputs)
                finals.append(final)
            if self.bidirectional:
                outputs = torch.cat(directions, dim=-1)
        if len(finals) == 1:
            return outputs, tuple(part.unsqueeze(0) for part in finals[0])
        return outputs, tuple(torch.stack(parts) for parts in zip(*finals, strict=True))

    def check_state(self, state: State, shape: tuple[int, ...]) -> None:
        """Refuse a state that has other parts or another shape than the layer's.

        Raises:
            ShapeError: With what was expected.
        """
        parts = ("hidden", "cell") if self.gating.cell == "lstm" else ("hidden",)
        if not isinstance(state, tuple | list) or len(state) != len(parts):
            got = f"{len(state)} parts" if isinstance(state, tuple | list) else f"a {type(state).__name__}"
            raise ShapeError(f"hx is {got}, expected the tuple ({', '.join(parts)}).")
        for name, part in zip(parts, state, strict=True):
            if not (isinstance(part, Tensor) and tuple(part.shape) == shape):
                what = "(layers * directions, batch, hidden_size)"
                if len(shape) == 2:
                    what = "(layers * directions, hidden_size) for unbatched input"
                got = (
                    f"has the shape {tuple(part.shape)}" if isinstance(part, Tensor) else f"is a {type(part).__name__}"
                )
                raise ShapeError(f"the {name} of hx {got}, expected {shape}: {what}.")
