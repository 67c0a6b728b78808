"""The two passes over a sequence as calls of the library, and their form that recomputes instead of saving.

Recomputing cuts the sequence into segments. The forward pass keeps what is carried over time at the start of
each, unless the outputs tell it: the LSTM's cell, and the GRU's hidden state where outputs are rounded. The backward
pass computes the activations of each segment again before it goes back through it, so that those of one segment only
are alive.
"""

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from urzoo.recurrence.cpu.library import arguments_of, current
from urzoo.recurrence.cpu.memory import empty
from urzoo.recurrence.gates import Gating, State
from urzoo.recurrence.kind import Kind

SEGMENT_LINES = 512
"""Steps times rows of a segment: enough for a well-shaped product, few enough for the cache."""

FEW_ROWS = 64
"""A sequence begins by packing the weights, which takes longer than one step of so few rows without it."""

WEIGHTS_A_THREAD = 1 << 18
"""Weights of a single step for each thread: with fewer it is over before the others have woken."""

_STATE = ("hidden", "cell")
_FINAL = ("final_hidden", "final_cell")


# What the library computes, of either cell; a letter that comes into gates.py runs on the reference until it is here.
_PRIMARY, _AUXILIARY, _DTYPES = "-CUO", "-MR", (torch.float32, torch.bfloat16)


def refusal(gating: Gating, dtype: torch.dtype) -> str:
    """Why the library cannot compute a gating in a dtype; "" if it can."""
    inputs = f"{str(dtype).removeprefix('torch.')} inputs"
    if dtype not in _DTYPES:
        return inputs
    known = gating.primary in _PRIMARY and gating.auxiliary in _AUXILIARY
    return "" if known else f"{inputs} with gate {gating.name!r} of the {gating.cell.upper()}"


@dataclass(frozen=True)
class FusedKind(Kind):
    """A kind, and what of it only the library needs to know."""

    @property
    def gates(self) -> int:
        """The number of vectors of gates that are saved for one vector of units."""
        return len(self.gating.blocks)

    @property
    def bf16(self) -> bool:
        """Whether factors are bfloat16."""
        return self.dtype == torch.bfloat16

    @property
    def keeps_carried(self) -> bool:
        """Whether what is carried over time is saved: outputs do not tell it."""
        return not self.gru or self.bf16

    @property
    def saved(self) -> int:
        """The number of vectors saved for one vector of units: the gates, and what is carried where kept."""
        return self.gates + self.keeps_carried

    @property
    def state_dtypes(self) -> tuple[torch.dtype, ...]:
        """What is carried over time is float32; the LSTM's hidden state is a factor and an output."""
        return (torch.float32,) if self.gru else (self.dtype, torch.float32)

    def segment_steps(self, batch: int) -> int:
        """Steps of a segment where activations are computed again."""
        return max(1, SEGMENT_LINES // batch)

    def function(self, name: str) -> str:
        """The name of a pass in the library."""
        return f"gru_{name}" if self.gru else name


@dataclass(frozen=True)
class Sequence:
    """The arguments of a scan, all contiguous; the bias holds the gate bias too. The state is that of `State`."""

    inputs: Tensor
    input_weight: Tensor
    recurrent_weight: Tensor
    bias: Tensor | None
    state: State
    mask: Tensor | None


def saved_shape(inputs: Tensor, hidden: Tensor, kind: FusedKind, save: str) -> tuple[int, ...]:
    """The shape of what the forward pass keeps for the backward pass; nothing if `save` is "nothing"."""
    batch, time, _ = inputs.shape
    if save == "nothing" or (save == "recompute" and not kind.keeps_carried):
        return (0,)
    if save == "recompute":
        return (-(-time // kind.segment_steps(batch)), *hidden.shape)
    width = current().width
    return (time, -(-hidden.shape[1] // width), batch, kind.saved, width)


def forward(sequence: Sequence, kind: FusedKind, save: str) -> tuple[Tensor, State, Tensor]:
    """Outputs, final state, and what `save` says is kept."""
    state = sequence.state
    outputs = empty(*sequence.inputs.shape[:2], state[0].shape[1], dtype=kind.dtype)
    saved = empty(*saved_shape(sequence.inputs, state[0], kind, save))
    kept = None if save == "nothing" else saved
    return outputs, _run_forward(sequence, kind, outputs, kept, recompute=save == "recompute"), saved


def backward(
    sequence: Sequence,
    kind: FusedKind,
    save: str,
    outputs: Tensor,
    saved: Tensor,
    grads: tuple[Tensor | None, ...],
    *,
    wants_inputs: bool,
) -> list[Tensor]:
    """Gradients of inputs (empty unless wanted), input weight, recurrent weight, bias and state, in float32.

    `grads` are those of the outputs and of the final state.
    """
    results = {
        "inputs_grad": empty(*sequence.inputs.shape) if wants_inputs else None,
        "input_weight_grad": empty(*sequence.input_weight.shape),
        "recurrent_weight_grad": empty(*sequence.recurrent_weight.shape),
        "bias_grad": empty(sequence.input_weight.shape[0]),
    }
    results |= {
        f"{name}_grad": torch.empty_like(part, dtype=torch.float32)
        for name, part in zip(_STATE, sequence.state, strict=False)
    }
    upstream = {"outputs_grad": grads[0], **{f"{n}_grad": grad for n, grad in zip(_FINAL, grads[1:], strict=False)}}
    arguments = _common(sequence, kind, recompute=save == "recompute") | {"outputs": outputs, "saved": saved} | upstream
    current().run(kind.function("backward"), **arguments, **results)
    return [empty(0) if result is None else result for result in results.values()]


def step(sequence: Sequence, kind: FusedKind) -> State:
    """The state after the one step of the sequence, without the packing that a sequence begins with.

    The weights are in the dtype of the kind.
    """
    final = tuple(map(torch.empty_like, sequence.state))
    arguments = _common(sequence, kind)
    arguments["threads"] = step_threads(sequence.recurrent_weight.numel(), sequence.inputs.shape[0])
    current().run(kind.function("step"), **arguments, **dict(zip(_FINAL, final, strict=False)))
    return final


def multiplied_as(kind: FusedKind, weights: torch.dtype) -> FusedKind:
    """What a step of few rows computes in place of `kind`: it multiplies weights as they are, of float32 or bfloat16.

    It reads each weight once, so that rounding float32 weights to bfloat16, as autocast has it, would take longer than
    the product. Nothing is lost then, but where the state is rounded in the end.
    """
    return dataclasses.replace(kind, dtype=weights)


def weights_alike(input_weight: Tensor, recurrent_weight: Tensor) -> tuple[Tensor, Tensor]:
    """Both in bfloat16 if they are so, else in float32: the library reads no others, such as float16 under autocast."""
    if not input_weight.dtype == recurrent_weight.dtype == torch.bfloat16:
        input_weight, recurrent_weight = input_weight.float(), recurrent_weight.float()
    return input_weight.contiguous(), recurrent_weight.contiguous()


def pack_weights(kind: FusedKind, input_weight: Tensor, recurrent_weight: Tensor, bias: Tensor | None) -> Tensor:
    """Weights and bias, with the gate bias in it, as the forward pass reads them."""
    input_weight, recurrent_weight = weights_alike(input_weight, recurrent_weight)
    arguments = {
        **options(kind),
        "input_size": input_weight.shape[1],
        "hidden_size": recurrent_weight.shape[1],
        "weights_bf16": recurrent_weight.dtype == torch.bfloat16,
        "input_weight": input_weight,
        "recurrent_weight": recurrent_weight,
        "bias": None if bias is None else bias.contiguous(),
        "threads": torch.get_num_threads(),
    }
    packed = empty(current().size(kind.function("packed_size"), arguments_of(**arguments)))
    current().run(kind.function("pack"), **arguments, packed=packed)
    return packed


def step_threads(weights: int, rows: int) -> int:
    """The threads for a step of so many weights and rows; reading the weights takes as long as multiplying two."""
    parts = weights * max(2, rows) // (2 * WEIGHTS_A_THREAD)
    return 1 if parts < 2 else min(torch.get_num_threads(), parts)


def options(kind: FusedKind) -> dict[str, Tensor | int | None]:
    """The fields of `Arguments` that say what is computed."""
    return {
        "tied": kind.gating.tie_input_gate,
        "refined": kind.gating.auxiliary == "R",
        "master": kind.gating.auxiliary == "M",
        "ordered": kind.gating.uses_cumax,
        "reverse": kind.reverse,
        "bf16": kind.bf16,
    }


def _common(sequence: Sequence, kind: FusedKind, *, recompute: bool = False) -> dict[str, Tensor | int | None]:
    batch, time, input_size = sequence.inputs.shape
    return {
        **options(kind),
        "batch": batch,
        "time": time,
        "input_size": input_size,
        "hidden_size": sequence.state[0].shape[1],
        "weights_bf16": sequence.recurrent_weight.dtype == torch.bfloat16,
        "segment": kind.segment_steps(batch) if recompute else 0,
        "inputs": sequence.inputs,
        "input_weight": sequence.input_weight,
        "recurrent_weight": sequence.recurrent_weight,
        "bias": sequence.bias,
        "mask": sequence.mask,
        **dict(zip(_STATE, sequence.state, strict=False)),
        "threads": torch.get_num_threads(),
    }


def _run_forward(
    sequence: Sequence, kind: FusedKind, outputs: Tensor, saved: Tensor | None, *, recompute: bool
) -> State:
    final = tuple(map(torch.empty_like, sequence.state))
    results = {"outputs": outputs, "saved": saved, **dict(zip(_FINAL, final, strict=False))}
    current().run(kind.function("forward"), **_common(sequence, kind, recompute=recompute), **results)
    return final
