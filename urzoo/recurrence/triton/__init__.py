"""The GPU back end: products through torch (cuBLAS), the gate arithmetic of a step in one Triton kernel.

An LSTM step is two launches forward and two backward, a GRU step four; a shape that repeats is recorded as a
CUDA graph and replayed. With `save="recompute"` the loop runs once more in the backward pass. It takes the gatings
without cumax and master gates, in float32, bfloat16 and float16. Triton is an optional dependency
(`pip install 'urzoo[triton]'`) and is imported at the first call. With TRITON_INTERPRET=1 in the environment the
kernels run on the CPU, slowly: that is for tests.
"""

import importlib.util
import os

import torch
from torch import Tensor

from urzoo.recurrence.gates import Gating, State, complete_bias
from urzoo.recurrence.kind import Kind

name = "triton"

_INSTALLED = importlib.util.find_spec("triton") is not None


def _interpreted() -> bool:
    return os.environ.get("TRITON_INTERPRET") == "1"


def unavailable() -> str:
    """Why this back end cannot run on this machine, with the remedy; "" if it can."""
    if not _INSTALLED:
        return "Triton is not installed; pip install 'urzoo[triton]'"
    if not torch.cuda.is_available() and not _interpreted():
        return "this machine has no CUDA device"
    return ""


def unsupported(gating: Gating, dtype: torch.dtype, device: torch.device) -> str:
    """Why this back end cannot run such a recurrence; "" if it can."""
    if device.type != "cuda" and not (device.type == "cpu" and _interpreted()):
        return f"device {str(device)!r}"
    if gating.cell not in ("lstm", "gru") or gating.primary not in "-CU" or gating.auxiliary not in "-R":
        return f"gate {gating.name!r} of the {gating.cell.upper()}"
    if dtype not in (torch.float32, torch.bfloat16, torch.float16):
        return f"{str(dtype).removeprefix('torch.')} inputs"
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
    named: bool,
) -> tuple[Tensor, State]:
    """Run the recurrence over a sequence; the arguments are those of `urzoo.recurrence.scan`, checked."""
    from urzoo.recurrence.triton.ops import gpu_scan  # Triton takes half a second to import.

    # What is not saved the backward pass computes again.
    tensors = (inputs, input_weight, recurrent_weight, bias, gate_bias, *state)
    differentiated = torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors)
    with torch.autocast(inputs.device.type, enabled=False):
        outputs, hidden, cell, *_ = gpu_scan(
            inputs,
            input_weight,
            recurrent_weight,
            complete_bias(gating, _exact(bias), _exact(gate_bias)),
            state[0],
            state[1] if gating.cell == "lstm" else None,
            mask,
            str(Kind(gating, reverse, dtype)),
            dtype,
            save if differentiated else "nothing",
            named,
        )
    return outputs.transpose(0, 1), (hidden, cell) if gating.cell == "lstm" else (hidden,)


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
        named=named,
    )
    return state


def release() -> None:
    """Give back the memory of the graphs that were recorded for shapes that repeated."""
    from urzoo.recurrence.triton import ops

    ops.release()


def _exact(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.float()
