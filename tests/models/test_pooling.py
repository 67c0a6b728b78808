import pytest
import torch
from torch import nn

from urzoo import URLSTMConfig
from urzoo.models.pooling_urlstm import PooledSoFar, pool

POOLINGS = [["max"], ["max", "mean"], ["last", "max"], ["mean", "max", "last"]]


def plain(states: torch.Tensor, pooling: list[str]) -> torch.Tensor:
    ends = torch.cat([states[:, -1, :4], states[:, 0, 4:]], dim=-1)
    parts = {"last": ends, "mean": states.mean(dim=1), "max": states.max(dim=1).values}
    return torch.cat([parts[name] for name in pooling], dim=-1)


@pytest.mark.parametrize("pooling", POOLINGS, ids=str)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 1e-2)], ids=str)
@pytest.mark.parametrize("size", [4, 8])
def test_whole_rows_have_the_values_and_the_gradient_of_their_parts(pooling, dtype, tolerance, size):
    config = URLSTMConfig(hidden_size=4, pooling=pooling)
    # Each value stands once in a row, so that its largest has one place.
    order = torch.stack([torch.randperm(9 * size) for _ in range(3)]).view(3, 9, size)
    states = (order / (9 * size) - 0.5).to(dtype).requires_grad_()
    upstream = torch.randn(3, size * len(pooling)).to(dtype)
    pooled = pool(states, None, config)
    expected = plain(states, pooling)
    torch.testing.assert_close(pooled, expected, atol=tolerance, rtol=tolerance)
    with torch.no_grad():
        torch.testing.assert_close(pool(states, None, config), expected, atol=tolerance, rtol=tolerance)
    (found,) = torch.autograd.grad(pooled, states, upstream)
    (wanted,) = torch.autograd.grad(expected, states, upstream)
    assert found.dtype == dtype
    torch.testing.assert_close(found, wanted, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_the_mean_of_a_long_row_in_16_bits_is_its_mean_however_it_comes_in(dtype):
    config = URLSTMConfig(hidden_size=4, pooling=["mean"])
    # Beyond what float16 holds, in sum and in number.
    states = torch.full((1, 70_000, 4), 1.3, dtype=dtype)
    padded, mask = nn.functional.pad(states, (0, 0, 0, 8)), torch.arange(70_008)[None] < 70_000
    far = PooledSoFar(config)
    for piece in states.split(1000, dim=1):
        far.add(piece)
    with torch.no_grad():
        found = pool(states, None, config), pool(padded, mask, config), far.value
    recorded = pool(states.requires_grad_(), None, config), pool(padded.requires_grad_(), mask, config)
    for mean in (*found, *recorded):
        torch.testing.assert_close(mean, states[:, 0])


def test_rows_with_a_mask_of_ones_have_the_same_values():
    config = URLSTMConfig(hidden_size=4, pooling=["last", "mean", "max"])
    states = torch.randn(2, 5, 4, requires_grad=True)
    torch.testing.assert_close(pool(states, torch.ones(2, 5, dtype=torch.bool), config), pool(states, None, config))


@pytest.mark.parametrize("mask", [None, torch.tensor([[True, True, True, False]])], ids=["whole", "padded"])
def test_the_first_of_equal_values_has_the_gradient(mask):
    states = torch.tensor([[1.0], [3.0], [3.0], [3.0]]).unsqueeze(0).requires_grad_()
    pool(states, mask, URLSTMConfig(hidden_size=1, pooling=["max"])).sum().backward()
    assert states.grad.flatten().tolist() == [0.0, 1.0, 0.0, 0.0]


def test_a_value_that_is_not_a_number_is_not_hidden():
    states = torch.zeros(1, 3, 4)
    states[0, 1, 2] = torch.nan
    states.requires_grad_()
    assert pool(states, None, URLSTMConfig(hidden_size=4, pooling=["max"])).isnan().tolist() == [
        [False, False, True, False]
    ]
