"""The parameters of one recurrent layer or cell: their shapes and how they begin."""

from typing import NoReturn

import torch
from torch import Tensor, nn
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from urzoo.errors import UsageError
from urzoo.recurrence.gates import Gating, initial_gate_bias


def check_sizes(**sizes: int) -> None:
    """Refuse a size that is not a positive whole number.

    Raises:
        UsageError: With the name of the argument.
    """
    for name, size in sizes.items():
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise UsageError(f"{name} is {size!r}, expected a whole number of at least 1.")


def refuse_scripting(module: nn.Module) -> NoReturn:
    """Say in one line what torch.jit.script cannot do and what can.

    Raises:
        UsageError: Always.
    """
    raise UsageError(
        f"torch.jit.script cannot compile {type(module).__name__}; "
        "take torch.compile, torch.export.export or torch.jit.trace."
    )


def empty_parameters(
    gating: Gating,
    input_size: int,
    hidden_size: int,
    *,
    bias: bool,
    train_gate_bias: bool,
    device: torch.device | str | None,
    dtype: torch.dtype | None,
) -> dict[str, nn.Parameter | None]:
    """The parameters of one direction of one layer, not yet initialised.

    Returns:
        weight_ih `(len(blocks) * hidden, input)`, weight_hh `(len(blocks) * hidden, hidden)`, bias
        `(len(blocks) * hidden,)`, forget_bias `(hidden,)`; None for those that the gating lacks.
    """
    rows = len(gating.blocks) * hidden_size

    def empty(*shape: int) -> Tensor:
        return torch.empty(shape, device=device, dtype=dtype)

    return {
        "weight_ih": nn.Parameter(empty(rows, input_size)),
        "weight_hh": nn.Parameter(empty(rows, hidden_size)),
        "bias": nn.Parameter(empty(rows)) if bias else None,
        "forget_bias": nn.Parameter(empty(hidden_size), requires_grad=train_gate_bias)
        if gating.uses_gate_bias
        else None,
    }


@torch.no_grad()
def initialise(
    gating: Gating,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias: Tensor | None,
    forget_bias: Tensor | None,
    *,
    max_time: int | None,
) -> None:
    """Orthogonal recurrent and Xavier-uniform input weights per block, zero biases, gate biases of the gating."""
    if weight_hh.is_meta:  # nothing to draw, and torch takes seconds to get ready for the decomposition there
        return
    hidden_size = weight_hh.shape[1]
    # The decomposition behind the orthogonal matrices knows no 16-bit dtype.
    exact = torch.promote_types(weight_hh.dtype, torch.float32)
    for block in weight_hh.chunk(len(gating.blocks)):
        block.copy_(nn.init.orthogonal_(torch.empty_like(block, dtype=exact)))
    for block in weight_ih.chunk(len(gating.blocks)):
        nn.init.xavier_uniform_(block)
    if bias is not None:
        bias.zero_()
    drawn = initial_gate_bias(gating, hidden_size, max_time=max_time)
    if forget_bias is not None:
        forget_bias.copy_(drawn)


def parameters_of(module: nn.Module, suffix: str = "") -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """weight_ih, weight_hh, bias and forget_bias of a cell, or of the direction of a layer that ends with `suffix`.

    By name at every call: replicas, functional calls, masks and parametrisations put other tensors in their place.
    """
    # Where they are parameters, past torch's search, which takes as long as a tenth of a small step.
    found = module._parameters
    names = (f"weight_ih{suffix}", f"weight_hh{suffix}", f"bias{suffix}", f"forget_bias{suffix}")
    weight_ih, weight_hh, bias, forget_bias = [
        found[name] if name in found else getattr(module, name) for name in names
    ]
    assert weight_ih is not None
    assert weight_hh is not None
    return weight_ih, weight_hh, bias, forget_bias


@torch.no_grad()
def renew_weights(module: nn.Module) -> None:
    """Make the weights anew that torch's hooks make before each call, by pruning or in its older normalisations.

    Whoever reads weights without a call has those of the last one else, whatever was trained or loaded since.
    """
    for part in module.modules():
        for hook in part._forward_pre_hooks.values():
            if isinstance(hook, BasePruningMethod | SpectralNorm | WeightNorm):
                hook(part, ())
