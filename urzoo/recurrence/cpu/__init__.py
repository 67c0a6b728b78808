"""The fused CPU back end: the whole sequence, forward and backward, in one call of a compiled library.

It takes every gating of the LSTM and those without cumax of the GRU in float32, and those without cumax and
master gates in bfloat16 too. The C++ source in `source/` is compiled with the package when a compiler is there
(setup.py) and knows nothing of torch; `library` loads it, `ops` and `gru_ops` make operators of it.
"""

import torch
from torch import Tensor

from urzoo.recurrence import reference
from urzoo.recurrence.cpu import kept, memory
from urzoo.recurrence.cpu.gru_ops import gru_scan, gru_step_directly
from urzoo.recurrence.cpu.library import current, problem_with_it, variants
from urzoo.recurrence.cpu.ops import lstm_scan, lstm_step, make_sequence
from urzoo.recurrence.cpu.passes import Kind, pack_weights, step_packed
from urzoo.recurrence.cpu.passes import step as unpacked_step
from urzoo.recurrence.gates import Gating, State, complete_bias

__all__ = ["name", "release", "scan", "step", "unavailable", "unsupported", "variants"]

name = "cpu"

# A sequence begins by packing the weights, which takes longer than one step of few rows without it: by the library's
# own step, or of some more rows of the GRU by torch's products.
_VERY_FEW_ROWS = 4
_FEW_ROWS = 16


def release() -> None:
    """Give back the memory that is kept for calls to come: packed weights and the pool of large tensors."""
    kept.release()
    memory.release()


def unavailable() -> str:
    """Why this back end cannot run on this machine, with the remedy; "" if it can."""
    return problem_with_it()


def unsupported(gating: Gating, dtype: torch.dtype, device: torch.device) -> str:
    """Why this back end cannot take such a problem; "" if it can."""
    if device.type != "cpu":
        return f"device {str(device)!r}"
    if gating.cell == "gru" and gating.uses_cumax:
        return f"gate {gating.name!r} of the GRU"
    if dtype not in (torch.float32, torch.bfloat16):
        return f"{str(dtype).removeprefix('torch.')} inputs"
    if dtype == torch.bfloat16 and (gating.uses_cumax or gating.auxiliary == "M"):
        return f"bfloat16 inputs with gate {gating.name!r} of the {gating.cell.upper()}"
    return ""


def scan(
    inputs: Tensor,
    input_weight: Tensor,
    recurrent_weight: Tensor,
    bias: Tensor | None,
    gate_bias: Tensor | None,
    state: State,
    *,
    gating: Gating,
    mask: Tensor | None,
    reverse: bool,
    save: str,
    dtype: torch.dtype,
) -> tuple[Tensor, State]:
    """Run the recurrence over a sequence; the arguments are those of `urzoo.recurrence.scan`, checked."""
    bias = _complete_bias(gating, bias, gate_bias)
    refined, bf16 = gating.auxiliary == "R", dtype == torch.bfloat16
    if not _differentiated(inputs, input_weight, recurrent_weight, bias, *state):
        save = "nothing"
    if gating.cell == "gru":
        outputs, final_hidden, _ = gru_scan(
            inputs, input_weight, recurrent_weight, bias, state[0], mask, refined, reverse, bf16, save
        )
        return outputs, (final_hidden,)
    hidden, cell = state
    outputs, final_hidden, final_cell, _ = lstm_scan(
        inputs,
        input_weight,
        recurrent_weight,
        bias,
        hidden,
        cell,
        mask,
        *_lstm(gating),
        reverse,
        bf16,
        save,
    )
    return outputs, (final_hidden, final_cell)


def step(
    inputs: Tensor,
    input_weight: Tensor,
    recurrent_weight: Tensor,
    bias: Tensor | None,
    gate_bias: Tensor | None,
    state: State,
    *,
    gating: Gating,
    dtype: torch.dtype,
) -> State:
    """Run one step; the arguments are those of `urzoo.recurrence.step`, checked."""
    rows = inputs.shape[0]
    differentiated = _differentiated(inputs, input_weight, recurrent_weight, bias, gate_bias, *state)
    if gating.cell == "lstm" and not differentiated:
        tied, refined, master, ordered = _lstm(gating)
        bf16 = dtype == torch.bfloat16
        kind = Kind(tied, refined, reverse=False, bf16=bf16, master=master, ordered=ordered)
        traced = torch.compiler.is_compiling() or type(inputs) is not Tensor

        def pack() -> Tensor:
            offsets = _complete_bias(gating, bias, gate_bias)
            return pack_weights(
                make_sequence(kind, inputs[:, None], input_weight, recurrent_weight, offsets, state), kind
            )

        if not traced:
            parameters = (recurrent_weight, input_weight, bias, gate_bias)
            packed = kept.packed_weights((kind, gating, current().variant), parameters, pack)
            if packed is not None:
                return step_packed(kind, inputs, packed, state)
        if rows <= _FEW_ROWS:
            weights = (input_weight, recurrent_weight, _complete_bias(gating, bias, gate_bias))
            if traced:
                return lstm_step(inputs, *weights, *state, *_lstm(gating), bf16)  # type: ignore[no-any-return]
            return unpacked_step(make_sequence(kind, inputs[:, None], *weights, state), kind)
    if gating.cell == "gru" and rows <= _VERY_FEW_ROWS and not differentiated:
        weights = (input_weight, recurrent_weight, _complete_bias(gating, bias, gate_bias))
        refined, bf16 = gating.auxiliary == "R", dtype == torch.bfloat16
        return (gru_step_directly(inputs, *weights, state[0], refined=refined, bf16=bf16),)
    if gating.cell == "gru" and rows <= _FEW_ROWS:
        return reference.step(
            inputs, input_weight, recurrent_weight, bias, gate_bias, state, gating=gating, dtype=dtype
        )
    _, state = scan(
        inputs[:, None],
        input_weight,
        recurrent_weight,
        bias,
        gate_bias,
        state,
        gating=gating,
        mask=None,
        reverse=False,
        save="activations",
        dtype=dtype,
    )
    return state


def _lstm(gating: Gating) -> tuple[bool, bool, bool, bool]:
    """A gating of the LSTM in the terms of its operators: tied, refined, master, ordered."""
    return gating.tie_input_gate, gating.auxiliary == "R", gating.auxiliary == "M", gating.uses_cumax


def _complete_bias(gating: Gating, bias: Tensor | None, gate_bias: Tensor | None) -> Tensor | None:
    """The bias with the gate bias in it, in float32 as all that is no factor of a product."""
    return complete_bias(
        gating, None if bias is None else bias.float(), None if gate_bias is None else gate_bias.float()
    )


def _differentiated(*tensors: Tensor | None) -> bool:
    return torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors)
