"""The gating mechanisms: what a gate computes from its pre-activation, and how its bias begins.

A gating is named by the paper's two letters on independent axes, so that this file has one entry per
letter and the twelve gatings are their products:

    primary gate     `-` sigmoid                     f = sigmoid(forget)
                     `C` chrono initialisation       f = sigmoid(forget + b),  b ~  log(Uniform[1, max_time - 1])
                     `O` cumax activation            f = cumsum(softmax(forget)) over the hidden units
                     `U` uniform gate initialisation f = sigmoid(forget + b),  b ~ logit(Uniform[1/d, 1 - 1/d])
    auxiliary gate   `-` none                        e = f
                     `M` master gates F, I           e = f w + (F - w),  w = F I
                     `R` refine gate r               e = f + f (1 - f) (2 r - 1),  r = sigmoid(refine - b)

e is the effective forget gate. The LSTM's cell moves by `c' = e c + (1 - e) u` (tied input gate) or by
`c' = e c + i u` with an input gate of its own; the GRU's hidden state by `h' = (1 - e) h + e u`, where the
primary gate is the update gate. With master gates the primary letter stands for these, and the inner
gates are plain sigmoids: so "OM" with an untied input gate is the ON-LSTM.

Sources: Gu et al. 2020, arXiv:1910.09890 (U, R and the names); Tallec and Ollivier 2018, arXiv:1804.11188
(C); Shen et al. 2019, arXiv:1810.09536 (O and M).
"""

from dataclasses import dataclass
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from urzoo.errors import UsageError, unknown

State = tuple[Tensor, ...]
"""LSTM: (hidden, cell); GRU: (hidden,). Each of shape `(batch, hidden_size)`."""


@dataclass(frozen=True)
class PrimaryGate:
    """A first letter: what it stands for, and its colour in plots on a light and on a dark ground."""

    meaning: str
    colours: tuple[str, str]


@dataclass(frozen=True)
class AuxiliaryGate:
    """A second letter: what it stands for, and its stroke in plots as lengths of dashes and gaps, solid if empty."""

    meaning: str
    dashes: tuple[int, ...] = ()


# Okabe and Ito's colours, a little darker or lighter, for those who see red and green alike.
PRIMARY = {
    "-": PrimaryGate("standard sigmoid gate", ("#6b7780", "#8c98a0")),
    "C": PrimaryGate("chrono initialisation", ("#c2541b", "#f0976a")),
    "O": PrimaryGate("cumax (ordered) activation", ("#7a8b1f", "#b9c95e")),
    "U": PrimaryGate("uniform gate initialisation", ("#2f6fb5", "#7fb2ee")),
}
AUXILIARY = {
    "-": AuxiliaryGate("no auxiliary gate", (2, 3)),
    "M": AuxiliaryGate("master gates", (7, 4)),
    "R": AuxiliaryGate("refine gate"),
}
GATINGS = tuple(primary + auxiliary for primary in PRIMARY for auxiliary in AUXILIARY)
CELLS = ("lstm", "gru")
SUBJECT = "UR"  # the paper's method: the default, and what plots draw in a colour of its own
STANDARD = "--"  # the gates of torch.nn.LSTM and torch.nn.GRU
ACCENT = ("#0b6b63", "#6ccfc3")


@dataclass(frozen=True)
class Gating:
    """What one recurrent cell computes; hashable.

    Args:
        name: The paper's two letters, one of `GATINGS`.
        cell: "lstm" or "gru". The GRU takes no master gates.
        tie_input_gate: The LSTM's input gate is one minus the effective forget gate; False gives it
            a block of weights of its own.
        refine_offset: The refine gate carries minus the gate bias (False: the form of state-spaces/s4).

    Raises:
        UsageError: A name is unknown or the combination has no meaning.
    """

    name: str = SUBJECT
    cell: str = "lstm"
    tie_input_gate: bool = True
    refine_offset: bool = True

    def __post_init__(self) -> None:
        if self.name not in GATINGS:
            raise UsageError(unknown("gate", self.name, GATINGS))
        if self.cell not in CELLS:
            raise UsageError(unknown("cell", self.cell, CELLS))
        if self.cell == "gru" and self.auxiliary == "M":
            raise UsageError(
                f"gate {self.name!r} has master gates, which the GRU does not take; "
                f"give gate={self.primary + 'R'!r} or {self.primary + '-'!r}, or cell='lstm'."
            )
        if self.cell == "gru" and not self.tie_input_gate:
            raise UsageError(
                "tie_input_gate is False, expected True with cell='gru': the GRU's update gate both keeps and writes."
            )

    @property
    def primary(self) -> str:
        """The first letter: "-", "C", "O" or "U"."""
        return self.name[0]

    @property
    def auxiliary(self) -> str:
        """The second letter: "-", "M" or "R"."""
        return self.name[1]

    @property
    def colours(self) -> tuple[str, str]:
        """The colour in plots on a light and on a dark ground, by the primary gate; the paper's method has its own."""
        return ACCENT if self.name == SUBJECT else PRIMARY[self.primary].colours

    @property
    def dashes(self) -> tuple[int, ...]:
        """The stroke in plots, by the auxiliary gate: lengths of dashes and gaps, solid if empty."""
        return AUXILIARY[self.auxiliary].dashes

    @property
    def order(self) -> tuple[int, int]:
        """Where the gating stands in plots: LSTM before GRU, the paper's method first and the standard gate last."""
        return CELLS.index(self.cell), -GATINGS.index(self.name)

    @property
    def options(self) -> dict[str, Any]:
        """The arguments by which the layers and cells of `urzoo.nn`, which are of one cell each, take the rest."""
        tied = {} if self.cell == "gru" else {"tie_input_gate": self.tie_input_gate}
        return {"gate": self.name, "refine_offset": self.refine_offset, **tied}

    @property
    def uses_max_time(self) -> bool:
        """Whether its initialisation asks for the longest dependency."""
        return self.primary == "C"

    @property
    def uses_gate_bias(self) -> bool:
        """Whether the gating has a vector of gate biases with an initialisation of its own."""
        return self.primary in ("C", "U")

    @property
    def uses_cumax(self) -> bool:
        """Whether a gate couples the hidden units by a cumulative softmax."""
        return self.primary == "O"

    @property
    def blocks(self) -> tuple[str, ...]:
        """The blocks of `hidden_size` rows in the weights and the bias, in order."""
        auxiliary = {"-": (), "M": ("master_forget", "master_input"), "R": ("refine",)}[self.auxiliary]
        if self.cell == "gru":
            return ("reset", "update", *auxiliary, "candidate")
        untied = () if self.tie_input_gate else ("input",)
        return (*untied, "forget", *auxiliary, "candidate", "output")


def gatings(cell: str) -> tuple[Gating, ...]:
    """Every gating that a cell takes, with a tied input gate, in the order of `GATINGS`."""
    return tuple(Gating(name, cell) for name in GATINGS if cell == "lstm" or name[1] != "M")


def initial_gate_bias(
    gating: Gating, hidden_size: int, *, max_time: int | None = None, generator: torch.Generator | None = None
) -> Tensor:
    """Draw the gate biases a new cell begins with.

    Args:
        gating: What the cell computes; zeros for a gating without gate bias.
        hidden_size: Number of hidden units d. With d = 1 the uniform interval is empty and the
            gate begins half open.
        max_time: The longest dependency expected, in steps, at least 2; for chrono gatings only,
            which need it.
        generator: Source of the randomness; torch's default one when omitted.

    Returns:
        Log-odds of shape `(hidden_size,)`, float32, on the CPU. For the GRU chrono has the
        opposite sign, because its primary gate lets new values in.

    Raises:
        UsageError: `max_time` is missing, too small, or given to a gating that does not use it.
    """
    if not gating.uses_max_time and max_time is not None:
        raise UsageError(
            f"max_time is {max_time}, but gate {gating.name!r} does not use it; "
            f"omit max_time or take a chrono gating: C-, CM or CR."
        )
    if gating.primary == "U":
        margin = min(1.0 / hidden_size, 0.5)
        return torch.logit(margin + (1.0 - 2.0 * margin) * _drawn(hidden_size, generator))
    if gating.uses_max_time:
        if max_time is None or not is_number(max_time) or max_time < 2:
            raise UsageError(
                f"max_time is {max_time!r}, expected at least 2 with gate {gating.name!r}: "
                "the longest dependency in steps, such as max_time=784 for a sequence of 784."
            )
        bias = torch.log(1.0 + (max_time - 2.0) * _drawn(hidden_size, generator))
        return -bias if gating.cell == "gru" else bias
    return torch.zeros(hidden_size, dtype=torch.float32, device="cpu")


def is_number(value: object) -> bool:
    """Whether a value is a real number, numpy's too, and no bool."""
    return isinstance(value, Real) and not isinstance(value, bool)


def _drawn(count: int, generator: torch.Generator | None) -> Tensor:
    # Not in the default dtype, which transformers sets to that of the model it builds: 16 bits have few values to draw.
    return torch.rand(count, generator=generator, dtype=torch.float32, device="cpu")


def complete_bias(gating: Gating, bias: Tensor | None, gate_bias: Tensor | None) -> Tensor | None:
    """The bias of all blocks with the gate bias in it, for back ends that add one bias to the pre-activations.

    Args:
        gating: What the cell computes; one with cumax has no gate bias.
        bias: Shape `(len(blocks) * hidden,)`; None stands for zeros.
        gate_bias: Log-odds of shape `(hidden,)`; None stands for zeros.

    Returns:
        Shape `(len(blocks) * hidden,)`, or None where both are None.
    """
    if gate_bias is None:
        return bias
    signs = torch.tensor(bias_signs(gating), dtype=gate_bias.dtype, device=gate_bias.device)
    offsets = (signs[:, None] * gate_bias).flatten()
    return offsets if bias is None else bias + offsets


def bias_signs(gating: Gating) -> list[float]:
    """With which sign the gate bias enters each block: 1, -1 or 0."""
    opening = ("master_forget",) if gating.auxiliary == "M" else ("forget", "update")
    closing = {"master_input" if gating.auxiliary == "M" else "input"}
    if gating.refine_offset:
        closing.add("refine")
    return [1.0 if block in opening else -1.0 if block in closing else 0.0 for block in gating.blocks]


def cumax(preactivations: Tensor) -> Tensor:
    """The cumulative softmax over the last dimension: rises from near 0 to 1 along the hidden units."""
    return torch.cumsum(torch.softmax(preactivations, dim=-1), dim=-1)


def refine(gate: Tensor, refinement: Tensor) -> Tensor:
    """Move a gate within the band [gate^2, 1 - (1 - gate)^2]; a refinement of 1/2 leaves it where it is.

    The same as `r (1 - (1 - f)^2) + (1 - r) f^2`, with fewer operations.
    """
    return gate + gate * (1.0 - gate) * (2.0 * refinement - 1.0)


def _opening(gating: Gating, preactivations: Tensor, gate_bias: Tensor | None) -> Tensor:
    """A primary gate in the direction of the gate bias: near 1 where the bias is large."""
    if gating.uses_cumax:
        return cumax(preactivations)
    return torch.sigmoid(preactivations if gate_bias is None else preactivations + gate_bias)


def _closing(gating: Gating, preactivations: Tensor, gate_bias: Tensor | None) -> Tensor:
    """A primary gate against the gate bias (an input gate): near 0 where the bias is large."""
    if gating.uses_cumax:
        return 1.0 - cumax(preactivations)
    return torch.sigmoid(preactivations if gate_bias is None else preactivations - gate_bias)


def effective_gate(gating: Gating, preactivations: dict[str, Tensor], gate_bias: Tensor | None) -> Tensor:
    """The gate e that decides how much changes: the LSTM's effective forget or the GRU's effective update gate.

    Args:
        gating: What the cell computes.
        preactivations: By block of `gating.blocks`, each `(batch, hidden)`.
        gate_bias: Log-odds of shape `(hidden,)`; None stands for zeros.
    """
    primary = preactivations["update" if gating.cell == "gru" else "forget"]
    if gating.auxiliary == "M":
        master_forget, _, overlap = _master_gates(gating, preactivations, gate_bias)
        return torch.sigmoid(primary) * overlap + (master_forget - overlap)
    gate = _opening(gating, primary, gate_bias)
    if gating.auxiliary == "R":
        refinement = preactivations["refine"]
        if gating.refine_offset and gate_bias is not None:
            refinement = refinement - gate_bias
        return refine(gate, torch.sigmoid(refinement))
    return gate


def effective_input(gating: Gating, preactivations: dict[str, Tensor], gate_bias: Tensor | None) -> Tensor:
    """The untied input gate i of the LSTM, `(batch, hidden)`; the refine gate does not touch it."""
    if gating.auxiliary == "M":
        _, master_input, overlap = _master_gates(gating, preactivations, gate_bias)
        return torch.sigmoid(preactivations["input"]) * overlap + (master_input - overlap)
    return _closing(gating, preactivations["input"], gate_bias)


def _master_gates(
    gating: Gating, preactivations: dict[str, Tensor], gate_bias: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Master forget gate F, master input gate I and their overlap w, in which the inner gates decide."""
    master_forget = _opening(gating, preactivations["master_forget"], gate_bias)
    master_input = _closing(gating, preactivations["master_input"], gate_bias)
    return master_forget, master_input, master_forget * master_input


def lstm_update(gating: Gating, preactivations: Tensor, gate_bias: Tensor | None, cell: Tensor) -> State:
    """One step of the LSTM from complete pre-activations.

    Args:
        gating: What the cell computes.
        preactivations: `W_ih x + W_hh h + bias`, shape `(batch, len(blocks) * hidden)`.
        gate_bias: Log-odds of shape `(hidden,)`; None stands for zeros.
        cell: The cell before the step, shape `(batch, hidden)`.

    Returns:
        The hidden state and the cell after the step.
    """
    parts = dict(zip(gating.blocks, preactivations.chunk(len(gating.blocks), dim=-1), strict=True))
    effective_forget = effective_gate(gating, parts, gate_bias)
    opened = 1.0 - effective_forget if gating.tie_input_gate else effective_input(gating, parts, gate_bias)
    cell = effective_forget * cell + opened * torch.tanh(parts["candidate"])
    return torch.sigmoid(parts["output"]) * torch.tanh(cell), cell


def gru_gates(gating: Gating, preactivations: Tensor, gate_bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """Reset gate and effective update gate of the GRU, from the pre-activations of all blocks but the last.

    The candidate is not among them: it needs the recurrent product with the hidden state after the reset.
    """
    blocks = gating.blocks[:-1]
    parts = dict(zip(blocks, preactivations.chunk(len(blocks), dim=-1), strict=True))
    return torch.sigmoid(parts["reset"]), effective_gate(gating, parts, gate_bias)


def zero_state(gating: Gating, batch: int, hidden_size: int, like: Tensor, dtype: torch.dtype) -> State:
    """The state before the first step: zeros, on the device of `like`."""
    zeros = like.new_zeros(batch, hidden_size, dtype=dtype)
    return (zeros, zeros) if gating.cell == "lstm" else (zeros,)
