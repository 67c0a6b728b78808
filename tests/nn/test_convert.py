"""Equality with torch.nn.LSTM and with the PyPI package ur-lstm-torch, given their weights.

In float64, which the reference runs, and in float32 on whatever back end is chosen here.
"""
# ruff: noqa: F722  (jaxtyping's shapes are no names)

import pytest
import torch
from beartype import beartype
from jaxtyping import Float, jaxtyped
from torch import Tensor, nn
from torch.nn import utils
from torch.nn.utils import parametrizations, prune
from torch.nn.utils.rnn import pack_sequence, pad_packed_sequence

from urzoo.errors import UsageError
from urzoo.nn import from_torch_lstm, from_ur_lstm_torch

both_dtypes = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)


@jaxtyped(typechecker=beartype)
def results(
    module: nn.Module,
    inputs: Float[Tensor, "first second input"],
    hx: tuple[Float[Tensor, "layers batch hidden"], Float[Tensor, "layers batch hidden"]],
) -> dict[str, Float[Tensor, "..."]]:
    """Outputs, state, and the gradients of input and initial state under a fixed upstream gradient."""
    leaves = [tensor.detach().clone().requires_grad_() for tensor in (inputs, *hx)]
    outputs, state = module(leaves[0], (leaves[1], leaves[2]))
    generator = torch.Generator().manual_seed(1)
    module.zero_grad()
    loss = sum(
        (part * torch.randn(part.shape, generator=generator, dtype=part.dtype)).sum() for part in (outputs, *state)
    )
    loss.backward()
    gradients = {name: leaf.grad for name, leaf in zip(("input", "hidden", "cell"), leaves, strict=True)}
    return {
        "outputs": outputs.detach(),
        "final_hidden": state[0].detach(),
        "final_cell": state[1].detach(),
        **gradients,
    }


@both_dtypes
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("bidirectional", [True, False])
def test_the_untied_standard_gating_is_torchs_lstm(
    bidirectional: bool, batch_first: bool, bias: bool, dtype: torch.dtype
):
    theirs = nn.LSTM(
        3, 6, 2, bias=bias, batch_first=batch_first, bidirectional=bidirectional, dtype=dtype, dropout=0.5
    ).eval()
    ours = from_torch_lstm(theirs)
    assert ours.dropout == 0.5
    assert not ours.training
    batch, layers = (9 if batch_first else 4), (4 if bidirectional else 2)
    inputs = torch.randn(9, 4, 3, dtype=dtype)
    hx = tuple(torch.randn(layers, batch, 6, dtype=dtype) for _ in range(2))
    torch.testing.assert_close(results(ours, inputs, hx), results(theirs, inputs, hx))
    for name, parameter in ours.named_parameters():
        other = dict(theirs.named_parameters())[name.replace("bias", "bias_ih")]
        torch.testing.assert_close(parameter.grad, other.grad)


def test_packed_sequences_equal_torchs():
    theirs = nn.LSTM(3, 6, 2, bidirectional=True, dtype=torch.float64)
    ours = from_torch_lstm(theirs)
    rows = [torch.randn(length, 3, dtype=torch.float64) for length in (2, 5, 1, 4)]
    packed = pack_sequence(rows, enforce_sorted=False)
    hx = tuple(torch.randn(4, 4, 6, dtype=torch.float64) for _ in range(2))
    (our_outputs, our_state), (their_outputs, their_state) = ours(packed, hx), theirs(packed, hx)
    torch.testing.assert_close(our_outputs.data, their_outputs.data)
    torch.testing.assert_close(our_state, their_state)
    torch.testing.assert_close(pad_packed_sequence(our_outputs), pad_packed_sequence(their_outputs))


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning", "ignore:.*spectral_norm:FutureWarning")
@pytest.mark.parametrize(
    "change",
    [
        lambda module: parametrizations.weight_norm(module, "weight_hh_l0"),
        lambda module: prune.l1_unstructured(module, "weight_ih_l0", 0.5),
        lambda module: utils.weight_norm(module, "weight_hh_l0"),
        lambda module: utils.spectral_norm(module, "weight_hh_l0"),
    ],
)
def test_weights_that_are_parametrised_or_pruned_are_converted_as_they_act(change):
    theirs = nn.LSTM(3, 6).eval()
    change(theirs)
    inputs = torch.randn(5, 2, 3)
    theirs(inputs)[0].sum().backward()
    torch.optim.SGD(theirs.parameters(), lr=0.1).step()
    converted = from_torch_lstm(theirs)  # before a call that would make them anew
    torch.testing.assert_close(converted(inputs)[0], theirs(inputs)[0])


def test_what_is_frozen_stays_so():
    theirs = nn.LSTM(3, 6)
    assert all(parameter.requires_grad for parameter in from_torch_lstm(theirs).parameters())
    assert not any(parameter.requires_grad for parameter in from_torch_lstm(theirs.requires_grad_(False)).parameters())


def test_the_converted_module_has_weights_of_its_own():
    theirs = nn.LSTM(3, 6)
    ours = from_torch_lstm(theirs)
    inputs = torch.randn(5, 2, 3)
    before = ours(inputs)[0]
    with torch.no_grad():
        theirs.weight_hh_l0.zero_()
    assert torch.equal(ours(inputs)[0], before)


@both_dtypes
@pytest.mark.parametrize("batch_first", [True, False])
def test_the_ur_lstm_is_that_of_ur_lstm_torch(batch_first: bool, dtype: torch.dtype):
    peer = pytest.importorskip("ur_lstm", reason="ur-lstm-torch is not installed")
    theirs = peer.URLSTM(3, 6, num_layers=2, batch_first=batch_first).to(dtype)
    ours = from_ur_lstm_torch(theirs)
    batch = 9 if batch_first else 4
    inputs = torch.randn(9, 4, 3, dtype=dtype)
    hx = tuple(torch.randn(2, batch, 6, dtype=dtype) for _ in range(2))
    torch.testing.assert_close(results(ours, inputs, hx), results(theirs, inputs, hx))
    for layer, cell in enumerate(theirs.layers):
        torch.testing.assert_close(getattr(ours, f"weight_ih_l{layer}").grad, cell.igates.weight.grad)
        torch.testing.assert_close(getattr(ours, f"weight_hh_l{layer}").grad, cell.hgates.weight.grad)
        torch.testing.assert_close(getattr(ours, f"bias_l{layer}").grad, cell.igates.bias.grad)
        torch.testing.assert_close(getattr(ours, f"forget_bias_l{layer}").grad, cell.forget_bias.grad)


def test_other_modules_are_refused_by_name():
    with pytest.raises(UsageError, match=r"module is a GRU, expected a torch\.nn\.LSTM\."):
        from_torch_lstm(nn.GRU(3, 4))
    with pytest.raises(UsageError, match=r"module has proj_size=2, expected 0"):
        from_torch_lstm(nn.LSTM(3, 4, proj_size=2))
    with pytest.raises(UsageError, match=r"module is a LSTM, expected a URLSTM of the package ur-lstm-torch\."):
        from_ur_lstm_torch(nn.LSTM(3, 4))
