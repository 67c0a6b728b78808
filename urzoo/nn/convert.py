"""URLSTM modules from the weights of other implementations."""

from typing import Any

import torch
from torch import Tensor, nn

from urzoo.errors import UsageError
from urzoo.nn.layers import URLSTM
from urzoo.nn.parameters import renew_weights
from urzoo.recurrence.gates import STANDARD


@torch.no_grad()
def from_torch_lstm(module: nn.LSTM) -> URLSTM:
    """The same function as a torch.nn.LSTM: gate "--" with an untied input gate, and a copy of its weights.

    It is frozen where all of `module` is.

    Raises:
        UsageError: `module` is not a torch.nn.LSTM, or has projected hidden states.
    """
    if not isinstance(module, nn.LSTM):
        raise UsageError(f"module is a {type(module).__name__}, expected a torch.nn.LSTM.")
    if module.proj_size != 0:
        raise UsageError(
            f"module has proj_size={module.proj_size}, expected 0: projected hidden states are not offered."
        )
    renew_weights(module)
    first = module.all_weights[0][0]
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
    converted.train(module.training).requires_grad_(any(one.requires_grad for one in module.parameters()))
    suffixes = [suffix for layer in range(module.num_layers) for suffix in converted.suffixes(layer)]
    for suffix, (weight_ih, weight_hh, *biases) in zip(suffixes, module.all_weights, strict=True):
        _copy(converted, suffix, weight_ih, weight_hh, biases[0] + biases[1] if biases else None)
    return converted


@torch.no_grad()
def from_ur_lstm_torch(module: nn.Module) -> URLSTM:
    """The same function as a `URLSTM` of the PyPI package ur-lstm-torch, with a copy of its weights.

    It is frozen where all of `module` is.

    Raises:
        UsageError: `module` does not have the parameters of that class.
    """
    layers = getattr(module, "layers", None)
    if not isinstance(layers, nn.ModuleList) or not all(hasattr(layer, "forget_bias") for layer in layers):
        raise UsageError(f"module is a {type(module).__name__}, expected a URLSTM of the package ur-lstm-torch.")
    renew_weights(module)
    peers: list[Any] = list(layers)
    first = peers[0].igates.weight
    converted = URLSTM(
        first.shape[1],
        first.shape[0] // 4,
        len(peers),
        batch_first=bool(module.batch_first),
        dropout=float(module.dropout.p),  # type: ignore[union-attr, arg-type]
        device=first.device,
        dtype=first.dtype,
    )
    converted.train(module.training).requires_grad_(any(one.requires_grad for one in module.parameters()))
    for number, peer in enumerate(peers):
        _copy(converted, f"_l{number}", peer.igates.weight, peer.hgates.weight, peer.igates.bias + peer.hgates.bias)
        getattr(converted, f"forget_bias_l{number}").copy_(peer.forget_bias)
    return converted


def _copy(layer: URLSTM, suffix: str, weight_ih: Tensor, weight_hh: Tensor, bias: Tensor | None) -> None:
    # From the modules' attributes: a state dict has the factors of weights that are parametrised or pruned.
    for name, tensor in (("weight_ih", weight_ih), ("weight_hh", weight_hh), ("bias", bias)):
        if tensor is not None:
            getattr(layer, name + suffix).copy_(tensor)
