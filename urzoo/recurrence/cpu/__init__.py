"""The fused CPU back end: the whole sequence, forward and backward, in one call of a compiled library.

The C++ source in `source/` is compiled with the package when a compiler is there (setup.py) and knows nothing of torch;
`library` loads it, `ops` makes operators of it, `quick` goes without them where nobody would notice.
"""

import torch
from torch import Tensor

from urzoo.recurrence.cpu import memory, quick
from urzoo.recurrence.cpu.library import not_loaded, variants
from urzoo.recurrence.cpu.ops import cpu_scan, cpu_step
from urzoo.recurrence.cpu.packed import PackedSteps
from urzoo.recurrence.cpu.passes import refusal
from urzoo.recurrence.gates import Gating, State, complete_bias
from urzoo.recurrence.kind import Kind

__all__ = ["PackedSteps", "name", "quick", "release", "scan", "step", "unavailable", "unsupported", "variants"]

name = "cpu"


def release() -> None:
    """Give back the memory that is kept for calls to come: the pool of large tensors."""
    memory.release()


def unavailable() -> str:
    """Why this back end cannot run on this machine, with the remedy; "" if it can."""
    return not_loaded()


def unsupported(gating: Gating, dtype: torch.dtype, device: torch.device) -> str:
    """Why this back end cannot run such a recurrence; "" if it can."""
    if device.type != "cpu":
        return f"device {str(device)!r}"
    return refusal(gating, dtype)


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
    named: bool,
) -> tuple[Tensor, State]:
    """Run the recurrence over a sequence; the arguments are those of `urzoo.recurrence.scan`, checked."""
    differentiated = _differentiated(inputs, input_weight, recurrent_weight, bias, gate_bias, *state)
    outputs, *final, _ = cpu_scan(
        inputs,
        input_weight,
        recurrent_weight,
        _complete_bias(gating, bias, gate_bias),
        state[0],
        state[1] if len(state) > 1 else None,
        mask,
        str(Kind(gating, reverse, dtype)),
        dtype,
        save if differentiated else "nothing",
        named,
    )
    return outputs, tuple(final[: len(state)])


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
    named: bool,
) -> State:
    """Run one step; the arguments are those of `urzoo.recurrence.step`, checked."""
    weights = input_weight, recurrent_weight, bias, gate_bias
    if _differentiated(inputs, *weights, *state):
        one = inputs[:, None]
        _, state = scan(
            one,
            *weights,
            state,
            gating=gating,
            mask=None,
            reverse=False,
            save="activations",
            dtype=dtype,
            named=named,
        )
        return state
    offsets = _complete_bias(gating, bias, gate_bias)
    kind, cell = str(Kind(gating, reverse=False, dtype=dtype)), state[1] if len(state) > 1 else None
    hidden, cell = cpu_step(inputs, input_weight, recurrent_weight, offsets, state[0], cell, kind, dtype)
    return (hidden, cell)[: len(state)]


def _complete_bias(gating: Gating, bias: Tensor | None, gate_bias: Tensor | None) -> Tensor | None:
    """The bias with the gate bias in it, in float32 as all that is no factor of a product."""
    return complete_bias(
        gating, None if bias is None else bias.float(), None if gate_bias is None else gate_bias.float()
    )


def _differentiated(*tensors: Tensor | None) -> bool:
    # torch.jit.trace compares a graph recorded with gradients with one recorded without.
    recorded = torch.is_grad_enabled() or torch._C._get_tracing_state() is not None
    return recorded and any(tensor is not None and tensor.requires_grad for tensor in tensors)
