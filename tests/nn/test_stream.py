"""A stream reads step by step what the layer reads at once."""

import copy
import pickle
import textwrap
import tracemalloc
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

import urzoo
from urzoo.errors import ShapeError, UsageError
from urzoo.nn import URGRU, URLSTM, Stream

LAYERS: dict[str, Callable[..., URLSTM | URGRU]] = {
    "lstm": URLSTM,
    "three layers": partial(URLSTM, num_layers=3),
    "lstm OM": partial(URLSTM, gate="OM", tie_input_gate=False),
    "gru": partial(URGRU, num_layers=2),
    "gru OR": partial(URGRU, gate="OR"),
    "named reference": partial(URLSTM, backend="reference"),
    "float64": partial(URLSTM, dtype=torch.float64),
    "bfloat16": partial(URLSTM, dtype=torch.bfloat16),
}


def parts(state: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (state,) if isinstance(state, Tensor) else state


@torch.no_grad()
@pytest.mark.parametrize("batch", [1, 2, 33])
@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
def test_steps_give_what_the_sequence_gives(make: Callable, batch: int):
    torch.manual_seed(0)
    layer = make(3, 21)
    inputs = torch.randn(6, batch, 3).to(layer.weight_ih_l0.dtype)
    tolerance = {"rtol": 2e-2, "atol": 2e-2} if inputs.dtype == torch.bfloat16 else {}
    _, before = layer(inputs[:3])
    for state in (None, before):
        expected, after = layer(inputs, state)
        stream = Stream(layer, batch, state)
        found = torch.stack([stream(step) for step in inputs])
        torch.testing.assert_close(found, expected, **tolerance)
        for ours, theirs in zip(parts(stream.state), parts(after), strict=True):
            torch.testing.assert_close(ours, theirs, **tolerance)


@torch.no_grad()
@pytest.mark.parametrize("backend", [None, "reference"])
def test_outputs_and_states_that_were_handed_out_stay_as_they_are(backend: str | None):
    stream = Stream(URLSTM(3, 21, backend=backend))
    output, state = stream(torch.randn(1, 3)), stream.state
    kept = [output.clone(), *(part.clone() for part in state)]
    stream(torch.randn(1, 3))
    assert all(map(torch.equal, kept, [output, *state]))
    state[0].zero_()
    assert stream.state[0].abs().sum() > 0


@torch.no_grad()
@pytest.mark.parametrize("backend", [None, "reference"])
@pytest.mark.parametrize("kind", [URLSTM, URGRU])
def test_writing_to_what_went_in_or_came_out_does_not_move_it(kind: type[URLSTM | URGRU], backend: str | None):
    layer, inputs = kind(3, 21, backend=backend), torch.randn(4, 1, 3)
    expected, state = layer(inputs, layer(inputs)[1])[0], layer(inputs)[1]
    stream = Stream(layer, state=state)
    for part in parts(state):
        part.zero_()
    for step, wanted in zip(inputs, expected, strict=True):
        output = stream(step)
        torch.testing.assert_close(output, wanted)
        output.zero_()


@torch.no_grad()
def test_a_state_that_is_given_is_not_written_to():
    layer, state = URLSTM(3, 21), (torch.randn(1, 1, 21), torch.randn(1, 1, 21))
    before = [part.clone() for part in state]
    Stream(layer, state=state)(torch.randn(1, 3))
    assert all(map(torch.equal, before, state))


@pytest.mark.parametrize("backend", [None, "reference"])
@pytest.mark.parametrize("make", [copy.copy, copy.deepcopy, pickle.dumps])
def test_to_copy_it_is_refused_in_one_line_and_its_state_goes_on(make: Callable, backend: str | None):
    layer, inputs = URLSTM(3, 21, backend=backend), torch.randn(2, 1, 3)
    stream = Stream(layer)
    stream(inputs[0])
    with pytest.raises(UsageError, match=r"^a Stream cannot be copied or pickled: .* with Stream\(layer, .*$"):
        make(stream)
    other = Stream(layer, 1, pickle.loads(pickle.dumps(stream.state)))
    assert torch.equal(other(inputs[1]), stream(inputs[1]))


@torch.no_grad()
@pytest.mark.parametrize("backend", [None, "reference"])
def test_the_weights_are_those_of_its_beginning_until_it_is_reset(backend: str | None):
    layer, inputs = URLSTM(3, 21, backend=backend), torch.randn(1, 3)
    stream = Stream(layer)
    first = stream(inputs)
    for parameter in layer.parameters():
        parameter.data.mul_(0.5)
    stream.reset()
    second = stream(inputs)
    torch.testing.assert_close(second, layer(inputs[None])[0][0])
    assert not torch.equal(first, second)
    opened = Stream(layer)
    for parameter in layer.parameters():
        parameter.data.mul_(2)
    assert torch.equal(opened(inputs), second)


def test_a_pruned_weight_is_read_as_the_next_call_would_make_it():
    layer, inputs = URLSTM(3, 21), torch.randn(1, 3)
    prune.l1_unstructured(layer, "weight_ih_l0", 0.5)
    layer(inputs)[0].sum().backward()
    torch.optim.SGD(layer.parameters(), lr=1.0).step()
    stream = Stream(layer)
    torch.testing.assert_close(stream(inputs), layer(inputs[None])[0][0].detach())


def test_it_gives_no_gradients_and_drops_nothing():
    layer = URLSTM(3, 21, 2, dropout=0.9).train()
    inputs = torch.randn(1, 3)
    output = Stream(layer)(inputs)
    assert not output.requires_grad
    torch.testing.assert_close(output, layer.eval()(inputs[None])[0][0])


@torch.no_grad()
@pytest.mark.parametrize("strange", [lambda x: torch._neg_view(-x), lambda x: torch.stack([x, x], -1)[..., 0]])
def test_inputs_may_be_strange(strange: Callable):
    layer, inputs = URLSTM(3, 21), torch.randn(1, 3)
    torch.testing.assert_close(Stream(layer)(strange(inputs)), layer(inputs[None])[0][0])


@torch.no_grad()
def test_under_autocast_it_multiplies_in_16_bits():
    layer, inputs = URLSTM(3, 21), torch.randn(1, 3)
    with torch.autocast("cpu", torch.bfloat16):
        stream = Stream(layer)
        expected = layer(inputs[None])[0][0]
        found = stream(inputs)
    assert found.dtype == expected.dtype == torch.bfloat16
    torch.testing.assert_close(found, expected, rtol=2e-2, atol=2e-2)


@torch.no_grad()
@pytest.mark.parametrize("backend", [None, "reference"])
@pytest.mark.parametrize("begun", [False, True])
def test_it_keeps_the_dtype_of_its_beginning_whatever_autocast_says_later(begun: bool, backend: str | None):
    layer, inputs = URLSTM(3, 21, 2, backend=backend), torch.randn(3, 1, 3)
    with torch.autocast("cpu", torch.bfloat16, enabled=begun):
        stream, expected = Stream(layer), layer(inputs)[0]
    with torch.autocast("cpu", torch.bfloat16, enabled=not begun):
        found = torch.stack([stream(step) for step in inputs])
    assert found.dtype == expected.dtype
    tolerance = {"rtol": 2e-2, "atol": 2e-2} if begun else {}
    torch.testing.assert_close(found, expected, **tolerance)


def test_its_state_is_handed_out_under_autocast_in_another_dtype():
    stream = Stream(URLSTM(3, 21, 2).half())
    stream(torch.randn(1, 3).half())
    expected = stream.state
    with torch.autocast("cpu", torch.bfloat16):
        assert all(map(torch.equal, stream.state, expected))


def test_memory_stays_the_same():
    stream, inputs = Stream(URLSTM(3, 21)), torch.randn(1, 3)
    stream(inputs)
    tracemalloc.start()
    try:
        for _ in range(50):
            stream(inputs)
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(500):
            stream(inputs)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 2000


def test_what_it_cannot_read_is_refused():
    with pytest.raises(UsageError, match=r"layer is a Linear, expected a urzoo\.nn\.URLSTM or URGRU\."):
        Stream(nn.Linear(3, 4))
    with pytest.raises(UsageError, match="layer is bidirectional"):
        Stream(URLSTM(3, 4, bidirectional=True))
    with pytest.raises(UsageError, match="batch_size is 0"):
        Stream(URLSTM(3, 4), 0)
    with pytest.raises(ShapeError, match=r"the hidden of hx has the shape \(1, 2, 4\), expected \(1, 1, 4\)"):
        Stream(URLSTM(3, 4), state=(torch.zeros(1, 2, 4), torch.zeros(1, 2, 4)))
    for state, message in (
        (torch.zeros(1, 1, 4, device="meta"), "the hidden of state is on meta, expected cpu"),
        (torch.zeros(1, 1, 4, dtype=torch.float64), "the hidden of state is float64, expected float32"),
    ):
        with pytest.raises(ShapeError, match=message):
            Stream(URLSTM(3, 4), state=(state, state))
    layer = URLSTM(3, 4)
    layer.bias_l0 = nn.Parameter(torch.zeros(4))
    with pytest.raises(ShapeError, match=r"bias has the shape \(4,\), expected \(16,\)"):
        Stream(layer)
    stream = Stream(URLSTM(3, 4))
    with pytest.raises(
        ShapeError, match=r"inputs has the shape \(1, 4\), expected \(1, 3\): \(batch_size, input_size\)"
    ):
        stream(torch.zeros(1, 4))
    with pytest.raises(ShapeError, match="inputs is float64 on cpu, expected float32 on cpu"):
        stream(torch.zeros(1, 3, dtype=torch.float64))


def test_the_example_of_its_docstring_runs():
    found = (Stream.__doc__ or "").split("\n\n")
    (example,) = (part for part in found if "stream(sample)" in part)
    namespace = {"urzoo": urzoo, "torch": torch}
    exec(textwrap.dedent(example), namespace)
    assert namespace["output"].shape == (1, 128)
