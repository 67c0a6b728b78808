"""Checks of the recurrence's arguments: shapes, dtypes and devices agree, each complaint in one line."""

import torch
from torch import Tensor

from urzoo.errors import ShapeError, UsageError
from urzoo.recurrence import reference
from urzoo.recurrence.gates import Gating, State, zero_state


def product_dtype(inputs: Tensor) -> torch.dtype:
    """The dtype of the products: that of the inputs, or autocast's (which leaves float64 alone)."""
    return torch.get_autocast_dtype(inputs.device.type) if _autocasts(inputs) else inputs.dtype


def checked_state(
    inputs: Tensor,
    input_weight: Tensor,
    recurrent_weight: Tensor,
    bias: Tensor | None,
    gate_bias: Tensor | None,
    state: State | None,
    gating: Gating,
    dtype: torch.dtype,
) -> State:
    """Compare every argument with the recurrent weight, which fixes the sizes; returns the state, zeros if None.

    Args:
        dtype: That of the products. The other arguments are those of `urzoo.recurrence.scan`.

    Raises:
        ShapeError: The shapes, dtypes or devices of the arguments do not agree.
        UsageError: A gate bias was given to a gating that has none.
    """
    if not dtype.is_floating_point:
        raise ShapeError(f"inputs is {_dtype(dtype)}, expected a floating-point dtype; give inputs.float().")
    if 0 in inputs.shape[1:]:
        raise ShapeError(
            f"inputs is empty, expected every size but batch to be at least 1; its shape is {_shape(inputs)}."
        )
    blocks = len(gating.blocks)
    if recurrent_weight.dim() != 2 or recurrent_weight.shape[0] != blocks * recurrent_weight.shape[1]:
        order = ", ".join(gating.blocks)
        raise ShapeError(
            f"recurrent_weight has the shape {_shape(recurrent_weight)}, expected ({blocks} * hidden, hidden) "
            f"for gate {gating.name!r}, in the order {order}."
        )
    rows, hidden_size = recurrent_weight.shape
    batch, input_size = inputs.shape[0], inputs.shape[-1]
    expected = {
        "input_weight": (input_weight, (rows, input_size), "(len(blocks) * hidden, input_size)"),
        "recurrent_weight": (recurrent_weight, (rows, hidden_size), ""),
        "bias": (bias, (rows,), "(len(blocks) * hidden,)"),
        "gate_bias": (gate_bias, (hidden_size,), "(hidden,)"),
    }
    for name, (tensor, shape, meaning) in expected.items():
        if tensor is None:
            continue
        if tuple(tensor.shape) != shape:
            raise ShapeError(f"{name} has the shape {_shape(tensor)}, expected {shape}: {meaning}.")
        if tensor.device != inputs.device:
            raise ShapeError(f"{name} is on {tensor.device}, expected {inputs.device} as inputs is.")
        if tensor.dtype != inputs.dtype and not (_autocasts(inputs) and tensor.dtype != torch.float64):
            raise ShapeError(
                f"{name} is {_dtype(tensor.dtype)}, expected {_dtype(inputs.dtype)} as inputs is; give "
                f"inputs.to({tensor.dtype}), or call .to({inputs.dtype}) on the layer."
            )
    if gate_bias is not None and gating.uses_cumax:
        raise UsageError(f"gate_bias was given, but gate {gating.name!r} has none; omit it.")
    if state is None:
        return zero_state(gating, batch, hidden_size, inputs, reference.carry_dtype(dtype))
    parts = ("hidden", "cell") if gating.cell == "lstm" else ("hidden",)
    if not isinstance(state, tuple) or len(state) != len(parts):
        got = f"a tuple of {len(state)}" if isinstance(state, tuple) else f"a {type(state).__name__}"
        raise ShapeError(f"state is {got}, expected the tuple ({', '.join(parts)}{',' * (len(parts) == 1)}).")
    for name, tensor in zip(parts, state, strict=True):
        if not (isinstance(tensor, Tensor) and tuple(tensor.shape) == (batch, hidden_size)):
            got = f"has the shape {_shape(tensor)}" if isinstance(tensor, Tensor) else f"is a {type(tensor).__name__}"
            raise ShapeError(f"the {name} of state {got}, expected {(batch, hidden_size)}: (batch, hidden).")
        if tensor.device != inputs.device:
            raise ShapeError(f"the {name} of state is on {tensor.device}, expected {inputs.device} as inputs is.")
        accepted = (dtype, inputs.dtype, reference.carry_dtype(dtype))
        if tensor.dtype not in accepted and not (_autocasts(inputs) and tensor.dtype != torch.float64):
            raise ShapeError(f"the {name} of state is {_dtype(tensor.dtype)}, expected {_dtype(inputs.dtype)}.")
    return state


def check_mask(mask: Tensor, inputs: Tensor) -> None:
    """Refuse a mask that is not one for the steps of `inputs`.

    Raises:
        ShapeError: Its dtype, shape or device is another.
    """
    if mask.dtype != torch.bool:
        raise ShapeError(f"mask is {_dtype(mask.dtype)}, expected bool; give mask.bool(), True where a step is real.")
    if mask.shape != inputs.shape[:2]:
        raise ShapeError(
            f"mask has the shape {_shape(mask)}, expected {_shape(inputs)[:2]}: (batch, time) as inputs has."
        )
    if mask.device != inputs.device:
        raise ShapeError(f"mask is on {mask.device}, expected {inputs.device} as inputs is.")


def _autocasts(inputs: Tensor) -> bool:
    return (
        inputs.dtype != torch.float64
        and torch.amp.is_autocast_available(inputs.device.type)
        and torch.is_autocast_enabled(inputs.device.type)
    )


def _shape(tensor: Tensor) -> tuple[int, ...]:
    return tuple(tensor.shape)


def _dtype(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
