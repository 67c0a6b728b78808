"""URLSTM modules from the weights of other implementations."""

import torch
from torch import nn

from urzoo.errors import UsageError
from urzoo.nn.layers import URLSTM
from urzoo.recurrence.gates import STANDARD


@torch.no_grad()
def from_torch_lstm(module: nn.LSTM) -> URLSTM:
    """The same function as a torch.nn.LSTM: gate "--" with an untied input gate, and a copy of its weights.

    Raises:
        UsageError: `module` is not a torch.nn.LSTM, or has projected hidden states.
    """
    if not isinstance(module, nn.LSTM):
        raise UsageError(f"module is a {type(module).__name__}, expected a torch.nn.LSTM.")
    if module.proj_size != 0:
        raise UsageError(
            f"module has proj_size={module.proj_size}, expected 0: projected hidden states are not offered."
        )
    weights = module.state_dict()
    first = weights["weight_ih_l0"]
    converted = URLSTM(
        module.input_size,
        module.hidden_size,
        module.num_layers,
        module.bias,
        module.batch_first,
        module.dropout,
        module.bidirectional,
        device=first.device,
        dtype=first.dtype,
        gate=STANDARD,
        tie_input_gate=False,
    )
    converted.train(module.training)
    merged = {name: tensor for name, tensor in weights.items() if name.startswith("weight_")}
    for name, tensor in weights.items():
        if name.startswith("bias_ih"):
            merged[name.replace("bias_ih", "bias")] = tensor + weights[name.replace("bias_ih", "bias_hh")]
    converted.load_state_dict(merged)
    return converted


@torch.no_grad()
def from_ur_lstm_torch(module: nn.Module) -> URLSTM:
    """The same function as a `URLSTM` of the PyPI package ur-lstm-torch, with a copy of its weights.

    Raises:
        UsageError: `module` does not have the parameters of that class.
    """
    layers = getattr(module, "layers", None)
    if not isinstance(layers, nn.ModuleList) or not all(hasattr(layer, "forget_bias") for layer in layers):
        raise UsageError(f"module is a {type(module).__name__}, expected a URLSTM of the package ur-lstm-torch.")
    weights = module.state_dict()
    first = weights["layers.0.igates.weight"]
    converted = URLSTM(
        first.shape[1],
        first.shape[0] // 4,
        len(layers),
        batch_first=bool(module.batch_first),
        dropout=float(module.dropout.p),  # type: ignore[union-attr, arg-type]
        device=first.device,
        dtype=first.dtype,
    )
    converted.train(module.training)
    renamed = {}
    for layer in range(len(layers)):
        prefix = f"layers.{layer}"
        renamed[f"weight_ih_l{layer}"] = weights[f"{prefix}.igates.weight"]
        renamed[f"weight_hh_l{layer}"] = weights[f"{prefix}.hgates.weight"]
        renamed[f"bias_l{layer}"] = weights[f"{prefix}.igates.bias"] + weights[f"{prefix}.hgates.bias"]
        renamed[f"forget_bias_l{layer}"] = weights[f"{prefix}.forget_bias"]
    converted.load_state_dict(renamed)
    return converted
