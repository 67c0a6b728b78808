"""The fused CPU back end: the whole sequence, forward and backward, in one call of a compiled library.

It takes every gating of the LSTM and those without cumax of the GRU in float32, and those without cumax and
master gates in bfloat16 too. The C++ source in `source/` is compiled with the package when a compiler is there
(setup.py) and knows nothing of torch; `library` loads it, `ops` and `gru_ops` make operators of it.
"""

import torch
from torch import Tensor
from torch.nn import Parameter

from urzoo.recurrence.cpu import memory
from urzoo.recurrence.cpu.gru_ops import gru_scan, gru_step
from urzoo.recurrence.cpu.library import problem_with_it, variants
from urzoo.recurrence.cpu.ops import lstm_scan, lstm_step, make_sequence
from urzoo.recurrence.cpu.passes import Kind
from urzoo.recurrence.cpu.passes import step as unpacked_step
from urzoo.recurrence.gates import Gating, State, complete_bias

__all__ = ["name", "release", "scan", "step", "unavailable", "unsupported", "variants"]

name = "cpu"

# A sequence begins by packing the weights, which takes longer than one step of so few rows without it; of fewer in
# bfloat16, where such a step converts the weights for every row.
_FEW_ROWS, _FEW_ROWS_BF16 = 12, 3

# Input weight, recurrent weight, bias and gate bias.
_Weights = tuple[Tensor, Tensor, Tensor | None, Tensor | None]


def release() -> None:
    """Give back the memory that is kept for calls to come: the pool of large tensors."""
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
    if not _differentiated(inputs, input_weight, recurrent_weight, bias, gate_bias, *state):
        save = "nothing"
    bias = _complete_bias(gating, bias, gate_bias)
    refined, bf16 = gating.auxiliary == "R", dtype == torch.bfloat16
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
    weights = input_weight, recurrent_weight, bias, gate_bias
    kind = _kind(gating, dtype)
    few = inputs.shape[0] <= (_FEW_ROWS_BF16 if kind.bf16 else _FEW_ROWS)
    if few and not _differentiated(inputs, *weights, *state):
        unpacked = _step_operator if _traced(inputs, *weights, *state) else _step
        return unpacked(gating, kind, inputs, weights, state)
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


def _step(gating: Gating, kind: Kind, inputs: Tensor, weights: _Weights, state: State) -> State:
    """One step without packing, past the dispatcher: the way through it takes as long as a small step."""
    input_weight, recurrent_weight, bias, gate_bias = weights
    offsets = _complete_bias(gating, bias, gate_bias)
    return unpacked_step(make_sequence(kind, inputs[:, None], input_weight, recurrent_weight, offsets, state), kind)


def _step_operator(gating: Gating, kind: Kind, inputs: Tensor, weights: _Weights, state: State) -> State:
    """The same as an operator."""
    input_weight, recurrent_weight, bias, gate_bias = weights
    arguments = inputs, input_weight, recurrent_weight, _complete_bias(gating, bias, gate_bias), *state
    if kind.gru:
        return (gru_step(*arguments, kind.refined, kind.bf16),)
    stepped: State = lstm_step(*arguments, *_lstm(gating), kind.bf16)
    return stepped


def _kind(gating: Gating, dtype: torch.dtype, *, reverse: bool = False) -> Kind:
    """What the library computes."""
    tied, refined, master, ordered = _lstm(gating)
    gru, bf16 = gating.cell == "gru", dtype == torch.bfloat16
    return Kind(tied, refined, reverse, gru=gru, bf16=bf16, master=master, ordered=ordered)


def _lstm(gating: Gating) -> tuple[bool, bool, bool, bool]:
    """A gating in the terms of the LSTM's operators: tied, refined, master, ordered."""
    return gating.tie_input_gate, gating.auxiliary == "R", gating.auxiliary == "M", gating.uses_cumax


def _complete_bias(gating: Gating, bias: Tensor | None, gate_bias: Tensor | None) -> Tensor | None:
    """The bias with the gate bias in it, in float32 as all that is no factor of a product."""
    return complete_bias(
        gating, None if bias is None else bias.float(), None if gate_bias is None else gate_bias.float()
    )


def _differentiated(*tensors: Tensor | None) -> bool:
    return torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors)


def _traced(*tensors: Tensor | None) -> bool:
    """Whether anybody follows operators: a compiler, a mode, or a transformation such as `torch.func.vmap`."""
    return (
        torch.compiler.is_compiling()
        or torch._C._get_tracing_state() is not None
        or torch._C._len_torch_dispatch_stack() > 0
        or any(tensor is not None and not _plain(tensor) for tensor in tensors)
    )


def _plain(tensor: Tensor) -> bool:
    return type(tensor) in (Tensor, Parameter) and not torch._C._functorch.is_functorch_wrapped_tensor(tensor)
