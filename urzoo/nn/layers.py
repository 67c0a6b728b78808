"""URLSTM and URGRU: stacks of recurrent layers, called as torch.nn.LSTM and torch.nn.GRU are.

Beyond torch: the gating and a mask. What both do is in stack.py; here stand their arguments.
"""

from typing import overload

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from urzoo.errors import UsageError
from urzoo.nn.stack import Stack
from urzoo.recurrence.gates import SUBJECT, Gating


class URLSTM(Stack):
    """A multi-layer gated LSTM, the UR-LSTM unless `gate` says otherwise; a drop-in for torch.nn.LSTM.

    Args:
        input_size: Number of input features.
        hidden_size: Number of hidden units.
        num_layers: Number of layers, each fed with the outputs of the one before.
        bias: False leaves out the bias of the pre-activations; the gate bias stays.
        batch_first: Batched inputs and outputs are `(batch, time, features)`, not `(time, batch, features)`.
        dropout: Probability of dropping an output between two layers, in training.
        bidirectional: A second set of parameters runs from the last step to the first.
        proj_size: Not offered: must be 0.
        device: As in torch.nn.LSTM.
        dtype: As in torch.nn.LSTM.
        gate: The paper's two letters, one of `urzoo.recurrence.GATINGS`.
        tie_input_gate: The input gate is one minus the effective forget gate; False gives it weights of its own.
        train_gate_bias: False freezes `forget_bias` as it is drawn.
        refine_offset: The refine gate carries minus the gate bias.
        max_time: The longest dependency in steps, for the chrono gatings, which need it.
        backend: A name from `urzoo.recurrence.backends()`; the fastest usable one when omitted.
        save: "activations", or "recompute" to trade time for memory in training.

    Raises:
        UsageError: An argument has a value that is not accepted.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,  # noqa: FBT001, FBT002  (torch's convention)
        batch_first: bool = False,  # noqa: FBT001, FBT002
        dropout: float = 0.0,
        bidirectional: bool = False,  # noqa: FBT001, FBT002
        proj_size: int = 0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        gate: str = SUBJECT,
        tie_input_gate: bool = True,
        train_gate_bias: bool = True,
        refine_offset: bool = True,
        max_time: int | None = None,
        backend: str | None = None,
        save: str = "activations",
    ) -> None:
        if proj_size != 0:
            raise UsageError(f"proj_size is {proj_size!r}, expected 0: projected hidden states are not offered.")
        super().__init__(
            input_size,
            hidden_size,
            num_layers,
            Gating(gate, "lstm", tie_input_gate, refine_offset),
            bias=bias,
            batch_first=batch_first,
            dropout=dropout,
            bidirectional=bidirectional,
            train_gate_bias=train_gate_bias,
            max_time=max_time,
            backend=backend,
            save=save,
            device=device,
            dtype=dtype,
        )

    @overload
    def forward(
        self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None, *, mask: Tensor | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]: ...

    @overload
    def forward(
        self, input: PackedSequence, hx: tuple[Tensor, Tensor] | None = None, *, mask: None = None
    ) -> tuple[PackedSequence, tuple[Tensor, Tensor]]: ...

    def forward(
        self,
        input: Tensor | PackedSequence,  # noqa: A002  (torch's name)
        hx: tuple[Tensor, Tensor] | None = None,
        *,
        mask: Tensor | None = None,
    ) -> tuple[Tensor | PackedSequence, tuple[Tensor, Tensor]]:
        """Run over a sequence.

        Args:
            input: `(time, batch, input_size)`, `(batch, time, input_size)` if batch_first, `(time, input_size)`,
                or a packed sequence.
            hx: (hidden, cell) before the first step, each `(layers * directions, batch, hidden_size)`, without
                `batch` for unbatched input; zeros when omitted.
            mask: True where a step is real, bool, of the shape of `input` without its last dimension; a packed
                sequence brings its own.

        Returns:
            The hidden states of the last layer, in the form of `input`, and (hidden, cell) after the last step.

        Raises:
            ShapeError: Shapes, dtypes or devices do not agree.
        """
        outputs, (hidden, cell) = self._scan(input, hx, mask)
        return outputs, (hidden, cell)


class URGRU(Stack):
    """A multi-layer gated GRU, the UR-GRU unless `gate` says otherwise, with torch.nn.GRU's conventions.

    The refined gate is the update gate. The reset gate acts on the hidden state before the recurrent product,
    as in Cho et al. 2014; torch.nn.GRU lets it act after, so the two differ. Arguments as for `URLSTM`.

    Raises:
        UsageError: An argument has a value that is not accepted.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,  # noqa: FBT001, FBT002  (torch's convention)
        batch_first: bool = False,  # noqa: FBT001, FBT002
        dropout: float = 0.0,
        bidirectional: bool = False,  # noqa: FBT001, FBT002
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        gate: str = SUBJECT,
        train_gate_bias: bool = True,
        refine_offset: bool = True,
        max_time: int | None = None,
        backend: str | None = None,
        save: str = "activations",
    ) -> None:
        super().__init__(
            input_size,
            hidden_size,
            num_layers,
            Gating(gate, "gru", refine_offset=refine_offset),
            bias=bias,
            batch_first=batch_first,
            dropout=dropout,
            bidirectional=bidirectional,
            train_gate_bias=train_gate_bias,
            max_time=max_time,
            backend=backend,
            save=save,
            device=device,
            dtype=dtype,
        )

    @overload
    def forward(
        self, input: Tensor, hx: Tensor | None = None, *, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]: ...

    @overload
    def forward(
        self, input: PackedSequence, hx: Tensor | None = None, *, mask: None = None
    ) -> tuple[PackedSequence, Tensor]: ...

    def forward(
        self,
        input: Tensor | PackedSequence,  # noqa: A002  (torch's name)
        hx: Tensor | None = None,
        *,
        mask: Tensor | None = None,
    ) -> tuple[Tensor | PackedSequence, Tensor]:
        """Run over a sequence: as `URLSTM.forward`, with one tensor as the state.

        Raises:
            ShapeError: Shapes, dtypes or devices do not agree.
        """
        outputs, (hidden,) = self._scan(input, None if hx is None else (hx,), mask)
        return outputs, hidden
