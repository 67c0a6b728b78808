"""URLSTMCell and URGRUCell: one step of the recurrence, called as torch.nn.LSTMCell and GRUCell are."""

from typing import NoReturn

import torch
from torch import Tensor, nn

from urzoo.errors import ShapeError
from urzoo.nn.parameters import check_sizes, empty_parameters, initialise, parameters_of, refuse_scripting
from urzoo.recurrence.gates import SUBJECT, Gating, State
from urzoo.recurrence.scan import check_options, step


class _Cell(nn.Module):
    """What both cells share; the gating says which one it is."""

    weight_ih: nn.Parameter
    weight_hh: nn.Parameter
    bias: nn.Parameter | None
    forget_bias: nn.Parameter | None

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        gating: Gating,
        *,
        bias: bool,
        train_gate_bias: bool,
        max_time: int | None,
        backend: str | None,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
    ) -> None:
        super().__init__()
        check_sizes(input_size=input_size, hidden_size=hidden_size)
        check_options(backend)
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.gating = gating
        self.train_gate_bias = train_gate_bias
        self.max_time = max_time
        self.backend = backend
        shapes = empty_parameters(
            gating, input_size, hidden_size, bias=bias, train_gate_bias=train_gate_bias, device=device, dtype=dtype
        )
        for name, parameter in shapes.items():
            self.register_parameter(name, parameter)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the parameters again: see `urzoo.nn.parameters.initialise`."""
        initialise(self.gating, self.weight_ih, self.weight_hh, self.bias, self.forget_bias, max_time=self.max_time)

    def __prepare_scriptable__(self) -> NoReturn:  # what torch.jit.script calls first
        refuse_scripting(self)

    def extra_repr(self) -> str:
        """The arguments that tell this module from another."""
        tied = "" if self.gating.tie_input_gate else ", tie_input_gate=False"
        bias = "" if self.bias is not None else ", bias=False"
        return f"{self.input_size}, {self.hidden_size}, gate={self.gating.name!r}{tied}{bias}"

    def _step(self, inputs: Tensor, state: State | list[Tensor] | None) -> State:
        """One step of a batch or of a single row; the state comes back as the inputs went in."""
        if inputs.dim() not in (1, 2):
            raise ShapeError(
                f"input has {inputs.dim()} dimensions, expected 2: (batch, input_size), or 1: (input_size,); "
                f"its shape is {tuple(inputs.shape)}."
            )
        if isinstance(state, list):  # as torch.nn.LSTMCell takes it too
            state = tuple(state)
        batched = inputs.dim() == 2
        if not batched:
            inputs = inputs[None]
            state = None if state is None else tuple(part[None] for part in state)
        state = step(inputs, *parameters_of(self), state, gating=self.gating, backend=self.backend)
        return state if batched else tuple(part[0] for part in state)


class URLSTMCell(_Cell):
    """One step of a gated LSTM, the UR-LSTM unless `gate` says otherwise.

    Args:
        input_size: Number of input features.
        hidden_size: Number of hidden units.
        bias: False leaves out the bias of the pre-activations; the gate bias stays.
        device: As in torch.nn.LSTMCell.
        dtype: As in torch.nn.LSTMCell.
        gate: One of `urzoo.recurrence.GATINGS`. The keyword arguments are those of `URLSTM`.

    Raises:
        UsageError: An argument has a value that is not accepted.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,  # noqa: FBT001, FBT002  (torch's convention)
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        gate: str = SUBJECT,
        tie_input_gate: bool = True,
        train_gate_bias: bool = True,
        refine_offset: bool = True,
        max_time: int | None = None,
        backend: str | None = None,
    ) -> None:
        super().__init__(
            input_size,
            hidden_size,
            Gating(gate, "lstm", tie_input_gate, refine_offset),
            bias=bias,
            train_gate_bias=train_gate_bias,
            max_time=max_time,
            backend=backend,
            device=device,
            dtype=dtype,
        )

    def forward(self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:  # noqa: A002
        """Run one step.

        Args:
            input: Shape `(batch, input_size)` or `(input_size,)`.
            hx: (hidden, cell) before the step, each `(batch, hidden_size)` or `(hidden_size,)`; zeros when omitted.

        Returns:
            (hidden, cell) after the step.
        """
        hidden, cell = self._step(input, hx)
        return hidden, cell


class URGRUCell(_Cell):
    """One step of a gated GRU, the UR-GRU unless `gate` says otherwise; arguments as for `URLSTMCell`."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,  # noqa: FBT001, FBT002  (torch's convention)
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        gate: str = SUBJECT,
        train_gate_bias: bool = True,
        refine_offset: bool = True,
        max_time: int | None = None,
        backend: str | None = None,
    ) -> None:
        super().__init__(
            input_size,
            hidden_size,
            Gating(gate, "gru", refine_offset=refine_offset),
            bias=bias,
            train_gate_bias=train_gate_bias,
            max_time=max_time,
            backend=backend,
            device=device,
            dtype=dtype,
        )

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:  # noqa: A002
        """Run one step.

        Args:
            input: Shape `(batch, input_size)` or `(input_size,)`.
            hx: The hidden state before the step, `(batch, hidden_size)` or `(hidden_size,)`; zeros when omitted.

        Returns:
            The hidden state after the step, in the dtype of the parameters. In a 16-bit dtype it is therefore rounded
            at every step, as in torch.nn.GRUCell; `URGRU` carries it in float32.
        """
        return self._step(input, None if hx is None else (hx,))[0].to(self.weight_hh.dtype)
