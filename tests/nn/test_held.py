"""Held weights are packed once, and a weight that torch sees changing is packed again."""

import copy
import pickle
import threading
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import urzoo
from tests.nn.test_writes import MODULES, SHAPES, WRITES, call, fresh
from urzoo.nn import URLSTM, HeldWeights, URLSTMCell
from urzoo.recurrence import backends
from urzoo.recurrence.held import held_weights

pytestmark = pytest.mark.skipif(bool(backends()["cpu"]), reason=backends()["cpu"])

# Torch swaps nothing that others refer to.
REFUSED = ("swap_tensors", "conversion_that_swaps")
# Past torch, which then has nothing to show: the block must be closed before.
UNSEEN = {
    *REFUSED,
    *(f"data.{name}" for name in ("copy_", "mul_", "clamp_")),
    *("data item", "NumPy view", "DLPack view", "storage written", "storage resized"),
    *("functional_sgd", "functional_adam", "apply_with_data", "flat_buffer", "moving_average", "averaged_model"),
}


@pytest.fixture
def packed(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """One entry for each time that weights are packed to be kept."""
    from urzoo.recurrence.cpu import quick

    found: list[object] = []
    pack = quick._pack
    monkeypatch.setattr(quick, "_pack", lambda *given: found.append(given) or pack(*given))
    return found


@pytest.mark.parametrize("module", MODULES)
def test_each_weight_is_packed_once(module: str, packed: list[object]):
    built = MODULES[module]()
    expected = {name: call(built, shape) for name, shape in SHAPES.items()}
    assert not packed
    block = HeldWeights()
    for _ in range(3):
        with block:
            for name, shape in SHAPES.items():
                for ours, theirs in zip(call(built, shape), expected[name], strict=True):
                    torch.testing.assert_close(ours, theirs)
    assert len(packed) == 1
    call(built, (5, 2))
    assert len(packed) == 1


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize("way", sorted(set(WRITES) - UNSEEN))
def test_a_write_that_torch_sees_is_seen_in_the_block(way: str, module: str):
    written = MODULES[module]()
    with HeldWeights():
        for shape in SHAPES.values():
            call(written, shape)
        WRITES[way](written)
        expected_of = fresh(written, MODULES[module])
        for shape in SHAPES.values():
            for ours, reference in zip(call(written, shape), call(expected_of, shape), strict=True):
                torch.testing.assert_close(ours, reference)


@pytest.mark.parametrize("way", REFUSED)
def test_to_swap_a_held_weight_is_refused_by_torch(way: str):
    written = MODULES["lstm"]()
    with HeldWeights():
        call(written, (5, 2))
        with pytest.raises(RuntimeError, match="swap"):
            WRITES[way](written)


def test_an_optimiser_is_watched_between_two_times_in_a_block():
    written, block = MODULES["lstm"](), HeldWeights()
    with block:
        call(written, (5, 2))
    WRITES["Adam fused"](written)
    with block:
        found = call(written, (5, 2))
    for ours, reference in zip(found, call(fresh(written, MODULES["lstm"]), (5, 2)), strict=True):
        torch.testing.assert_close(ours, reference)


@pytest.mark.parametrize("way", WRITES)
def test_any_write_is_seen_after_the_block(way: str):
    written = MODULES["lstm"]()
    with HeldWeights():
        call(written, (5, 2))
    WRITES[way](written)
    expected = call(fresh(written, MODULES["lstm"]), (5, 2))
    for ours, reference in zip(call(written, (5, 2)), expected, strict=True):
        torch.testing.assert_close(ours, reference)
    with HeldWeights():
        for ours, reference in zip(call(written, (5, 2)), expected, strict=True):
            torch.testing.assert_close(ours, reference)


@pytest.mark.parametrize("replace", [lambda x: (x.data * 0.5).clone(), lambda x: nn.Parameter(x.detach() * 0.5)])
def test_a_weight_that_comes_to_lie_where_another_was_is_another(replace: Callable[[Tensor], Tensor]):
    """An allocator gives the same address again and again."""
    layer = URLSTM(3, 21)
    with HeldWeights():
        for _ in range(8):
            call(layer, (5, 2))
            for name, parameter in list(layer.named_parameters()):
                new = replace(parameter)
                if isinstance(new, nn.Parameter):
                    setattr(layer, name, new)
                else:
                    parameter.data = new
                del new
            found, expected = call(layer, (5, 2)), call(fresh(layer, MODULES["lstm"]), (5, 2))
            for ours, reference in zip(found, expected, strict=True):
                torch.testing.assert_close(ours, reference)


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("batch", [1, 2, 70])
def test_steps_have_the_bits_of_the_sequence(batch: int, autocast: bool, dtype: torch.dtype):
    layer = URLSTM(3, 40, num_layers=2, dtype=dtype)
    inputs, state, found = torch.randn(7, batch, 3).to(dtype), None, []
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        expected, after = layer(inputs)
        with HeldWeights():
            for piece in (inputs[:1], inputs[1:4], inputs[4:5], inputs[5:]):
                outputs, state = layer(piece, state)
                found.append(outputs)
    assert torch.equal(torch.cat(found), expected)
    assert all(map(torch.equal, state, after))


def test_nothing_is_kept_of_weights_that_are_gone():
    block = HeldWeights()
    with block:
        for _ in range(5):
            call(URLSTM(3, 21), (5, 2))
    assert len(block._entries) == 1


def test_what_is_no_parameter_is_not_kept(packed: list[object]):
    cell = URLSTMCell(3, 21)
    with torch.no_grad(), HeldWeights():
        weights = {name: value.detach() * 1 for name, value in cell.named_parameters()}
        torch.func.functional_call(cell, weights, torch.randn(1, 3))
    assert not packed


@pytest.mark.parametrize("again", [copy.deepcopy, lambda block: pickle.loads(pickle.dumps(block))])
def test_a_copy_of_a_block_packs_anew(again: Callable[[HeldWeights], HeldWeights], packed: list[object]):
    layer = URLSTM(3, 21)
    with HeldWeights() as block:
        call(layer, (5, 2))
    with again(block):
        call(layer, (5, 2))
    assert len(packed) == 2


def test_gradients_are_those_of_ever():
    layer, inputs = URLSTM(3, 21), torch.randn(5, 2, 3)
    expected = torch.autograd.grad(layer(inputs)[0].sum(), list(layer.parameters()))
    with HeldWeights():
        call(layer, (5, 2))
        found = torch.autograd.grad(layer(inputs)[0].sum(), list(layer.parameters()))
    assert all(map(torch.equal, found, expected))


def test_a_block_is_of_one_thread_and_may_hold_another():
    seen = []
    with HeldWeights() as outer:
        thread = threading.Thread(target=lambda: seen.append(held_weights()))
        thread.start()
        thread.join()
        with HeldWeights() as inner:
            assert held_weights() is inner
        with outer:
            assert held_weights() is outer
        assert held_weights() is outer
    assert seen == [None]
    assert held_weights() is None


def test_the_example_of_its_docstring_runs():
    (example,) = (part for part in (HeldWeights.__doc__ or "").split("\n\n") if "HeldWeights():" in part)
    namespace = {"urzoo": urzoo, "torch": torch}
    exec("\n".join(line[8:] for line in example.splitlines()), namespace)
    assert namespace["outputs"].shape == (4, 2, 128)
