"""The way of a plain step past the dispatcher gives what the general way gives, and leaves to it what is not plain."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from tests.recurrence.conftest import ALL_GATINGS, gating_id
from urzoo.errors import ShapeError, UsageError
from urzoo.recurrence import Gating, State, backends, scan, step
from urzoo.recurrence.cpu import quick
from urzoo.recurrence.cpu.passes import FEW_ROWS, refusal

pytestmark = pytest.mark.skipif(bool(backends()["cpu"]), reason=backends()["cpu"])

DTYPES = [torch.float32, torch.bfloat16]
TAKEN = [gating for gating in ALL_GATINGS if not refusal(gating, torch.float32)]
Arguments = tuple[list[Tensor | None], State]


def problem(gating: Gating, dtype: torch.dtype = torch.float32, *, batch: int = 1, biases: bool = True) -> Arguments:
    generator = torch.Generator().manual_seed(0)
    rows, hidden = len(gating.blocks) * 21, 21

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(dtype)

    weights = [drawn(batch, 5), drawn(rows, 5), drawn(rows, hidden), None, None]
    if biases:
        weights[3:] = drawn(rows), drawn(hidden) if gating.uses_gate_bias else None
    state = (drawn(batch, hidden), torch.randn(batch, hidden, generator=generator))
    return weights, state if gating.cell == "lstm" else (state[1],)


def general(*arguments: object, gating: Gating) -> State:
    """The step by the operator: under a dispatch mode nothing goes past the dispatcher."""
    with FlopCounterMode(display=False):
        return step(*arguments, gating=gating)


@torch.no_grad()
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("gating", TAKEN, ids=gating_id)
def test_it_gives_the_bits_of_the_operator(gating: Gating, dtype: torch.dtype):
    for batch in (1, 3):
        for biases in (True, False):
            weights, state = problem(gating, dtype, batch=batch, biases=biases)
            assert quick.step(weights, state, gating) is not None
            found, expected = step(*weights, state, gating=gating), general(*weights, state, gating=gating)
            assert all(map(torch.equal, found, expected))
            assert [part.dtype for part in found] == [part.dtype for part in expected]
            outputs, after = scan(weights[0][:, None], *weights[1:], state, gating=gating)
            assert all(map(torch.equal, after, expected))
            assert torch.equal(outputs[:, 0], expected[0].to(dtype))


@torch.no_grad()
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("gating", TAKEN, ids=gating_id)
def test_so_it_does_under_autocast(gating: Gating, dtype: torch.dtype):
    for batch in (1, 7, FEW_ROWS + 1):
        weights, state = problem(gating, dtype, batch=batch)
        with torch.autocast("cpu", torch.bfloat16):
            assert quick.step(weights, state, gating) is not None
            found, expected = step(*weights, state, gating=gating), general(*weights, state, gating=gating)
        assert all(map(torch.equal, found, expected))
        assert [part.dtype for part in found] == [part.dtype for part in expected]


@torch.no_grad()
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("gating", TAKEN, ids=gating_id)
def test_a_sequence_has_the_bits_of_the_operator(gating: Gating, dtype: torch.dtype, reverse: bool, autocast: bool):
    weights, state = problem(gating, dtype, batch=2)
    inputs = torch.randn(2, 4, 5).to(dtype)
    options = {"gating": gating, "reverse": reverse}
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        for given in (state, None):
            assert quick.scan([inputs, *weights[1:]], given, gating, reverse=reverse) is not None
            outputs, after = scan(inputs, *weights[1:], given, **options)
            with FlopCounterMode(display=False):
                expected, final = scan(inputs, *weights[1:], given, **options)
            assert torch.equal(outputs, expected)
            assert outputs.dtype == expected.dtype
            assert all(map(torch.equal, after, final))
            assert [part.dtype for part in after] == [part.dtype for part in final]


class Labelled(Tensor):
    pass


ODD: dict[str, Callable[[Tensor], Tensor]] = {
    "negated lazily": lambda tensor: torch._neg_view(-tensor),
    "of a subclass": lambda tensor: tensor.as_subclass(Labelled),
}


@torch.no_grad()
@pytest.mark.parametrize("where", range(7))
@pytest.mark.parametrize("odd", ODD)
def test_tensors_that_are_not_plain_go_the_general_way(odd: str, where: int):
    weights, state = problem(Gating())
    expected = step(*weights, state, gating=Gating())
    tensors = [*weights, *state]
    tensors[where] = ODD[odd](tensors[where])
    assert quick.step(tensors[:5], tuple(tensors[5:]), Gating()) is None
    for ours, reference in zip(step(*tensors[:5], tuple(tensors[5:]), gating=Gating()), expected, strict=True):
        torch.testing.assert_close(ours.as_subclass(Tensor), reference)


@pytest.mark.parametrize("time", [1, 4])
def test_another_default_device_makes_no_difference(time: int):
    weights, _ = problem(Gating())
    weights = [weight.requires_grad_() for weight in weights]
    inputs, upstream = torch.randn(2, time, 5), torch.randn(2, time, 21)
    found = []
    for device in ("cpu", "meta"):
        with torch.device(device):
            with torch.no_grad():
                outputs = [scan(inputs, *weights[1:])[0]]
            again = scan(inputs, *weights[1:])[0]
            found.append([*outputs, again, *torch.autograd.grad(again, weights[1:], upstream)])
    assert all(map(torch.equal, *found))


@torch.no_grad()
@pytest.mark.parametrize("where", range(7))
def test_strides_make_no_difference(where: int):
    weights, state = problem(Gating())
    expected = step(*weights, state, gating=Gating())
    tensors = [*weights, *state]
    tensors[where] = torch.stack([tensors[where]] * 2, dim=-1)[..., 0]
    assert (quick.step(tensors[:5], tuple(tensors[5:]), Gating()) is None) == (1 <= where <= 4)
    assert all(map(torch.equal, step(*tensors[:5], tuple(tensors[5:]), gating=Gating()), expected))


@torch.no_grad()
@pytest.mark.parametrize(
    ("where", "changed", "message"),
    [
        (0, torch.zeros(1, 4), "input_weight has the shape"),
        (0, torch.zeros(1, 5, dtype=torch.float64), "input_weight is float32, expected float64"),
        (1, torch.zeros(84, 5, dtype=torch.bfloat16), "input_weight is bfloat16, expected float32"),
        (2, torch.zeros(84, 20), "recurrent_weight has the shape"),
        (3, torch.zeros(80), "bias has the shape"),
        (4, torch.zeros(20), "gate_bias has the shape"),
        (5, torch.zeros(2, 21), "the hidden of state has the shape"),
        (6, torch.zeros(1, 21, dtype=torch.float64), "the cell of state is float64"),
    ],
)
def test_what_is_wrong_is_said_as_ever(where: int, changed: Tensor, message: str):
    weights, state = problem(Gating())
    tensors = [*weights, *state]
    step(*weights, state, gating=Gating())
    tensors[where] = changed
    with pytest.raises(ShapeError, match=message):
        step(*tensors[:5], tuple(tensors[5:]), gating=Gating())


@torch.no_grad()
def test_so_are_a_state_of_another_cell_and_a_gate_bias_too_many():
    weights, state = problem(Gating())
    with pytest.raises(ShapeError, match="state is a tuple of 1"):
        step(*weights, state[:1], gating=Gating())
    with pytest.raises(UsageError, match="gate_bias was given, but gate 'OR' has none"):
        step(*weights, state, gating=Gating("OR"))


def test_gradients_and_tracing_go_the_general_way():
    weights, state = problem(Gating())
    assert quick.step(weights, state, Gating()) is None
    with torch.inference_mode():
        assert quick.step(weights, state, Gating()) is not None
        assert quick.step([None if one is None else one.clone() for one in weights], state, Gating()) is not None
