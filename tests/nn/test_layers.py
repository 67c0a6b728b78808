"""URLSTM and URGRU: torch's conventions, and every way in and out giving the same numbers."""
# ruff: noqa: F722  (jaxtyping's shapes are no names)

import copy
import io
import pickle

import pytest
import torch
from beartype import beartype
from jaxtyping import Float, jaxtyped
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pack_sequence, pad_packed_sequence

from urzoo.errors import ShapeError, UsageError
from urzoo.nn import URGRU, URLSTM, URGRUCell
from urzoo.recurrence import GATINGS

Stack = type[URLSTM] | type[URGRU]
both = pytest.mark.parametrize("stack", [URLSTM, URGRU])
LENGTHS = (3, 7, 1, 7)


def parts(state: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return state if isinstance(state, tuple) else (state,)


def initial(module: nn.Module, batch: int) -> Tensor | tuple[Tensor, ...]:
    shape = (module.num_layers * module.num_directions, batch, module.hidden_size)
    drawn = torch.randn(2, *shape)
    return (drawn[0], drawn[1]) if isinstance(module, URLSTM) else drawn[0]


def select(state: Tensor | tuple[Tensor, ...], rows: slice | Tensor) -> Tensor | tuple[Tensor, ...]:
    return tuple(part[:, rows] for part in state) if isinstance(state, tuple) else state[:, rows]


@jaxtyped(typechecker=beartype)
def checked(
    module: nn.Module, inputs: Float[Tensor, "time batch input"], hx: object = None, **options: object
) -> tuple[Float[Tensor, "time batch features"], tuple[Float[Tensor, "layers batch hidden"], ...]]:
    outputs, state = module(inputs, hx, **options)
    return outputs, parts(state)


@both
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("num_layers", [1, 3])
def test_shapes_follow_torch(stack: Stack, num_layers: int, bidirectional: bool):
    module = stack(3, 5, num_layers, bidirectional=bidirectional)
    peer = (nn.LSTM if stack is URLSTM else nn.GRU)(3, 5, num_layers, bidirectional=bidirectional)
    outputs, state = checked(module, torch.randn(7, 4, 3))
    expected, expected_state = peer(torch.randn(7, 4, 3))
    assert outputs.shape == expected.shape
    assert [part.shape for part in state] == [part.shape for part in parts(expected_state)]


@both
def test_batch_first_is_a_transposition(stack: Stack):
    module = stack(3, 5, 2, bidirectional=True)
    first = stack(3, 5, 2, batch_first=True, bidirectional=True)
    first.load_state_dict(module.state_dict())
    inputs, hx = torch.randn(7, 4, 3), initial(module, 4)
    mask = torch.rand(7, 4) < 0.7
    outputs, state = checked(module, inputs, hx, mask=mask)
    transposed, same = first(inputs.transpose(0, 1), hx, mask=mask.T)
    torch.testing.assert_close(transposed.transpose(0, 1), outputs)
    torch.testing.assert_close(parts(same), state)


@both
def test_an_unbatched_sequence_is_a_batch_of_one(stack: Stack):
    module = stack(3, 5, 2, bidirectional=True)
    inputs, hx = torch.randn(7, 1, 3), initial(module, 1)
    outputs, state = checked(module, inputs, hx)
    alone, alone_state = module(inputs[:, 0], _squeeze(hx), mask=torch.ones(7, dtype=torch.bool))
    torch.testing.assert_close(alone, outputs[:, 0])
    for part, batched in zip(parts(alone_state), state, strict=True):
        torch.testing.assert_close(part, batched[:, 0])
    first = stack(3, 5, 2, batch_first=True, bidirectional=True)
    first.load_state_dict(module.state_dict())
    torch.testing.assert_close(first(inputs[:, 0], _squeeze(hx))[0], alone)


def _squeeze(state: Tensor | tuple[Tensor, ...]) -> Tensor | tuple[Tensor, ...]:
    return tuple(part[:, 0] for part in state) if isinstance(state, tuple) else state[:, 0]


@both
def test_a_missing_state_is_zeros(stack: Stack):
    module = stack(3, 5, 2)
    inputs = torch.randn(7, 4, 3)
    zeros = tuple(torch.zeros(2, 4, 5) for _ in range(2)) if stack is URLSTM else torch.zeros(2, 4, 5)
    torch.testing.assert_close(module(inputs)[0], module(inputs, zeros)[0], rtol=0, atol=0)


@both
def test_both_directions_are_two_runs(stack: Stack):
    module = stack(3, 5, bidirectional=True)
    inputs, hx = torch.randn(7, 4, 3), initial(module, 4)
    outputs, state = checked(module, inputs, hx)
    weights = module.state_dict()
    single = stack(3, 5)
    single.load_state_dict({name: tensor for name, tensor in weights.items() if not name.endswith("_reverse")})
    forward, forward_state = checked(single, inputs, _direction(hx, 0))
    single.load_state_dict(
        {name.removesuffix("_reverse"): tensor for name, tensor in weights.items() if name.endswith("_reverse")}
    )
    backward, backward_state = checked(single, inputs.flip(0), _direction(hx, 1))
    torch.testing.assert_close(outputs, torch.cat((forward, backward.flip(0)), -1))
    for whole, one, other in zip(state, forward_state, backward_state, strict=True):
        torch.testing.assert_close(whole, torch.cat((one, other)))


def _direction(state: Tensor | tuple[Tensor, ...], direction: int) -> Tensor | tuple[Tensor, ...]:
    rows = slice(direction, direction + 1)
    return tuple(part[rows] for part in state) if isinstance(state, tuple) else state[rows]


@both
@pytest.mark.parametrize("enforce_sorted", [False, True])
def test_a_packed_sequence_is_its_rows(stack: Stack, enforce_sorted: bool):
    module = stack(3, 5, 2, bidirectional=True)
    lengths = sorted(LENGTHS, reverse=True) if enforce_sorted else LENGTHS
    rows = [torch.randn(length, 3) for length in lengths]
    hx = initial(module, 4)
    packed = pack_sequence(rows, enforce_sorted=enforce_sorted)
    outputs, state = module(packed, hx)
    assert isinstance(outputs, PackedSequence)
    assert torch.equal(outputs.batch_sizes, packed.batch_sizes)
    padded, out_lengths = pad_packed_sequence(outputs)
    assert out_lengths.tolist() == list(lengths)
    for row, length in enumerate(lengths):
        alone, alone_state = checked(module, rows[row][:, None], select(hx, slice(row, row + 1)))
        torch.testing.assert_close(padded[:length, row], alone[:, 0])
        for part, wanted in zip(parts(state), alone_state, strict=True):
            torch.testing.assert_close(part[:, row], wanted[:, 0])


def test_a_packed_sequence_comes_back_as_torch_packs_it():
    module = URLSTM(3, 5, 2, bidirectional=True)
    peer = nn.LSTM(3, 5, 2, bidirectional=True)
    packed = pack_padded_sequence(torch.randn(7, 4, 3), torch.tensor(LENGTHS), enforce_sorted=False)
    ours, theirs = module(packed)[0], peer(packed)[0]
    assert ours.data.shape == theirs.data.shape
    assert torch.equal(ours.sorted_indices, theirs.sorted_indices)
    assert torch.equal(ours.unsorted_indices, theirs.unsorted_indices)


@both
@pytest.mark.parametrize("pad", ["left", "right"])
def test_a_mask_gives_each_row_as_if_it_were_alone(stack: Stack, pad: str):
    module = stack(3, 5, 2, batch_first=True, bidirectional=True)
    inputs, hx = torch.randn(4, 7, 3), initial(module, 4)
    mask = torch.arange(7)[None, :] < torch.tensor(LENGTHS)[:, None]
    mask = mask.flip(1) if pad == "left" else mask
    outputs, state = module(inputs, hx, mask=mask)
    for row in range(4):
        alone, alone_state = module(inputs[row : row + 1, mask[row]], select(hx, slice(row, row + 1)))
        torch.testing.assert_close(outputs[row, mask[row]], alone[0])
        for part, wanted in zip(parts(state), parts(alone_state), strict=True):
            torch.testing.assert_close(part[:, row], wanted[:, 0])


@both
def test_dropout_acts_between_layers_and_in_training_alone(stack: Stack):
    module = stack(3, 50, 2, dropout=0.5)
    inputs = torch.randn(7, 4, 3)
    first, second = module(inputs)[0], module(inputs)[0]
    assert not torch.equal(first, second)
    plain = stack(3, 50, 2)
    plain.load_state_dict(module.state_dict())
    module.eval()
    assert torch.equal(module(inputs)[0], plain(inputs)[0])
    with pytest.warns(UserWarning, match=r"dropout is 0\.5 with num_layers=1: it acts between layers only"):
        stack(3, 5, dropout=0.5)


@pytest.mark.parametrize("gate", GATINGS)
@both
def test_every_gate_trains(stack: Stack, gate: str):
    if stack is URGRU and gate.endswith("M"):
        with pytest.raises(UsageError, match="master gates, which the GRU does not take"):
            stack(3, 5, gate=gate)
        return
    module = stack(3, 5, 2, gate=gate, max_time=10 if gate[0] == "C" else None)
    assert ("forget_bias_l0" in module.state_dict()) == (gate[0] in "CU")
    outputs, _ = module(torch.randn(7, 4, 3))
    outputs.sum().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_a_frozen_gate_bias_is_saved_and_not_trained():
    module = URLSTM(3, 5, train_gate_bias=False)
    module(torch.randn(7, 4, 3))[0].sum().backward()
    assert module.forget_bias_l0.grad is None
    assert "forget_bias_l0" in module.state_dict()


def test_without_bias_the_gate_bias_stays():
    module = URLSTM(3, 5, bias=False)
    assert set(module.state_dict()) == {"weight_ih_l0", "weight_hh_l0", "forget_bias_l0"}
    module(torch.randn(7, 4, 3))


def test_the_ur_lstm_has_the_parameters_of_an_lstm():
    ours = sum(parameter.numel() for parameter in URLSTM(3, 50).parameters())
    theirs = sum(parameter.numel() for parameter in nn.LSTM(3, 50).parameters())
    assert ours == theirs - 4 * 50 + 50


def test_parameters_begin_orthogonal_and_with_zero_bias():
    module = URLSTM(3, 8, dtype=torch.float64)
    for block in module.weight_hh_l0.chunk(4):
        torch.testing.assert_close(block @ block.T, torch.eye(8, dtype=torch.float64))
    assert not module.bias_l0.any()
    bound = (6 / (3 + 8)) ** 0.5
    assert 0.8 * bound < module.weight_ih_l0.abs().max() <= bound
    before = module.forget_bias_l0.clone()
    module.reset_parameters()
    assert not torch.equal(before, module.forget_bias_l0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_every_dtype_can_be_built_and_run(dtype: torch.dtype):
    module = URLSTM(3, 5, 2, dtype=dtype)
    assert {parameter.dtype for parameter in module.parameters()} == {dtype}
    inputs = torch.randn(7, 4, 3).to(dtype)
    outputs, state = module(inputs)
    assert outputs.dtype == dtype
    # The state that comes out goes in again.
    assert module(inputs, state)[0].dtype == dtype


def test_a_module_can_be_built_without_memory():
    module = URLSTM(3, 5, device="meta")
    assert module.weight_hh_l0.is_meta


@both
def test_copies_pickles_and_state_dicts_compute_the_same(stack: Stack):
    module = stack(3, 5, 2, bidirectional=True, gate="U-")
    inputs = torch.randn(7, 4, 3)
    expected = module(inputs)[0]
    buffer = io.BytesIO()
    torch.save(module.state_dict(), buffer)
    buffer.seek(0)
    loaded = stack(3, 5, 2, bidirectional=True, gate="U-")
    loaded.load_state_dict(torch.load(buffer, weights_only=True))
    for other in (loaded, copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(other(inputs)[0], expected)
        assert str(other) == str(module)


def test_replaced_parameters_are_the_ones_that_run():
    module = URLSTM(3, 5)
    other = URLSTM(3, 5)
    inputs = torch.randn(7, 4, 3)
    called = torch.func.functional_call(module, dict(other.named_parameters()), (inputs,))
    torch.testing.assert_close(called[0], other(inputs)[0], rtol=0, atol=0)
    torch.testing.assert_close(nn.DataParallel(module)(inputs)[0], module(inputs)[0], rtol=0, atol=0)


def test_the_representation_tells_modules_apart():
    assert str(URLSTM(3, 5)) == "URLSTM(3, 5, gate='UR')"
    assert str(
        URLSTM(3, 5, 2, dropout=0.1, gate="C-", max_time=9, tie_input_gate=False, backend="reference", save="recompute")
    ) == (
        "URLSTM(3, 5, num_layers=2, dropout=0.1, gate='C-', tie_input_gate=False, max_time=9, "
        "backend='reference', save='recompute')"
    )
    assert str(URGRU(3, 5, bias=False, refine_offset=False, train_gate_bias=False)) == (
        "URGRU(3, 5, bias=False, gate='UR', refine_offset=False, train_gate_bias=False)"
    )


def test_autocast_runs_the_whole_stack_in_bfloat16():
    module = URLSTM(3, 5, 2, bidirectional=True)
    inputs = torch.randn(7, 4, 3)
    expected = module(inputs)[0]
    with torch.autocast("cpu", torch.bfloat16):
        outputs, (hidden, cell) = module(inputs)
    assert outputs.dtype == hidden.dtype == torch.bfloat16
    assert cell.dtype == torch.float32
    torch.testing.assert_close(outputs.float(), expected, rtol=0, atol=2e-2)
    outputs.float().sum().backward()
    assert module.weight_hh_l0.grad.dtype == torch.float32


MISTAKES = [
    ((torch.zeros(2, 3, 4, 3),), {}, ShapeError, r"input has 4 dimensions, expected 3: \(time, batch, input_size\)"),
    ((torch.zeros(7, 4, 2),), {}, ShapeError, r"input has 2 features in its last dimension, expected input_size=3"),
    ((torch.zeros(0, 4, 3),), {}, ShapeError, r"input has no time steps, .* its shape is \(0, 4, 3\)"),
    (
        (torch.zeros(7, 4, 3),),
        {"mask": torch.ones(4, 7, dtype=torch.bool)},
        ShapeError,
        r"mask has the shape \(4, 7\), expected \(7, 4\): that of input without its last dimension\.",
    ),
    (
        (torch.zeros(7, 4, 3), (torch.zeros(1, 4, 5), torch.zeros(1, 2, 5))),
        {},
        ShapeError,
        r"the cell of hx has the shape \(1, 2, 5\), expected \(1, 4, 5\): \(layers \* directions, batch, hidden_size\)",
    ),
    (
        (torch.zeros(7, 3), (torch.zeros(1, 1, 5), torch.zeros(1, 1, 5))),
        {},
        ShapeError,
        r"the hidden of hx has the shape \(1, 1, 5\), expected \(1, 5\): .* for unbatched input",
    ),
    ((torch.zeros(7, 4, 3), torch.zeros(1, 4, 5)), {}, ShapeError, r"hx is a Tensor, expected the tuple"),
    ((torch.zeros(7, 4, 3), (torch.zeros(1, 4, 5),)), {}, ShapeError, r"hx is 1 parts, expected the tuple"),
    (
        (pack_sequence([torch.zeros(2, 3)]),),
        {"mask": torch.ones(2, 1, dtype=torch.bool)},
        UsageError,
        r"mask was given with a packed sequence, which has lengths of its own; omit mask\.",
    ),
    ((pack_sequence([torch.zeros(2, 4)]),), {}, ShapeError, r"input has 4 features .* expected input_size=3"),
]


@pytest.mark.parametrize(("given", "options", "error", "message"), MISTAKES)
def test_a_wrong_call_is_refused_by_name(given: tuple, options: dict, error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        URLSTM(3, 5)(*given, **options)


@pytest.mark.parametrize("inputs", [torch.zeros(7, 4, 3), torch.zeros(7, 3)])
def test_the_state_of_an_lstm_is_none_for_a_gru(inputs: torch.Tensor):
    with pytest.raises(ShapeError, match=r"the hidden of hx is a tuple, expected \(1, "):
        URGRU(3, 5)(inputs, (torch.zeros(1, 4, 5), torch.zeros(1, 4, 5)))
    with pytest.raises(ShapeError, match=r"the hidden of state is a tuple, expected \(4, 5\)"):
        URGRUCell(3, 5)(torch.zeros(4, 3), (torch.zeros(4, 5), torch.zeros(4, 5)))


@pytest.mark.parametrize(
    ("given", "options", "message"),
    [
        ((0, 5), {}, r"input_size is 0, expected a whole number of at least 1\."),
        ((3, 5.0), {}, r"hidden_size is 5\.0, expected a whole number"),
        ((3, 5, True), {}, r"num_layers is True, expected a whole number"),
        ((3, 5), {"dropout": 1.5}, r"dropout is 1\.5, expected a probability from 0 to 1\."),
        ((3, 5), {"dropout": True}, r"dropout is True, expected a probability"),
        ((3, 5), {"dropout": "a"}, r"dropout is 'a', expected a probability"),
        ((3, 5), {"gate": "C-", "max_time": "a"}, r"max_time is 'a', expected at least 2"),
        ((3, 5), {"proj_size": 2}, r"proj_size is 2, expected 0: projected hidden states are not offered\."),
        ((3, 5), {"gate": "RU"}, r"unknown gate 'RU'\. Did you mean .*\? Available: "),
        ((3, 5), {"gate": "C-"}, r"max_time is None, expected at least 2 with gate 'C-'"),
        ((3, 5), {"save": "all"}, r"unknown save 'all'"),
        ((3, 5), {"backend": "gpu"}, r"unknown backend 'gpu'"),
    ],
)
def test_a_wrong_option_is_refused_by_name(given: tuple, options: dict, message: str):
    with pytest.raises(UsageError, match=message):
        URLSTM(*given, **options)
