"""URLSTMCell and URGRUCell: one step of the stacks, with torch's conventions."""
# ruff: noqa: F722  (jaxtyping's shapes are no names)

import copy

import pytest
import torch
from beartype import beartype
from jaxtyping import Float, jaxtyped
from torch import Tensor, nn

from urzoo.errors import ShapeError, UsageError
from urzoo.nn import URGRU, URLSTM, URGRUCell, URLSTMCell

pairs = pytest.mark.parametrize(("cell", "stack"), [(URLSTMCell, URLSTM), (URGRUCell, URGRU)])


Row = Float[Tensor, "batch hidden"]


@jaxtyped(typechecker=beartype)
def checked(
    module: nn.Module, inputs: Float[Tensor, "batch input"], state: Row | tuple[Row, Row] | None = None
) -> Row | tuple[Row, Row]:
    return module(inputs, state)


@pairs
@pytest.mark.parametrize("gate", ["--", "UR", "O-"])
def test_cells_in_a_loop_are_the_stack(cell: type, stack: type, gate: str):
    one, whole = cell(3, 5, gate=gate), stack(3, 5, gate=gate)
    whole.load_state_dict({f"{name}_l0": tensor for name, tensor in one.state_dict().items()})
    inputs = torch.randn(7, 4, 3)
    outputs, final = whole(inputs)
    state = None
    for time in range(7):
        state = checked(one, inputs[time], state)
        torch.testing.assert_close(_hidden(state), outputs[time])
    last = final[1][0] if isinstance(final, tuple) else final[0]
    torch.testing.assert_close(state[1] if isinstance(state, tuple) else state, last)


def _hidden(state: Tensor | tuple[Tensor, Tensor]) -> Tensor:
    return state[0] if isinstance(state, tuple) else state


@pairs
def test_a_single_row_is_a_batch_of_one(cell: type, stack: type):
    module = cell(3, 5)
    inputs = torch.randn(3)
    batched = module(inputs[None])
    alone = module(inputs)
    torch.testing.assert_close(_hidden(alone), _hidden(batched)[0])
    torch.testing.assert_close(_hidden(module(inputs, alone)), _hidden(module(inputs[None], batched))[0])


def test_a_list_is_a_state_as_in_torch():
    module, inputs = URLSTMCell(3, 5), torch.randn(4, 3)
    state = module(inputs)
    for given in (inputs, inputs[0]):
        parts = state if given is inputs else [part[0] for part in state]
        assert torch.equal(module(given, list(parts))[1], module(given, tuple(parts))[1])


@pairs
def test_a_step_has_gradients(cell: type, stack: type):
    module = cell(3, 5)
    _hidden(module(torch.randn(4, 3), module(torch.randn(4, 3)))).sum().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pairs
def test_a_step_sees_a_changed_weight(cell: type, stack: type):
    module = cell(3, 5)
    inputs = torch.randn(4, 3)
    with torch.no_grad():
        before = _hidden(module(inputs))
        module.weight_ih.mul_(2.0)
        after = _hidden(module(inputs))
        assert not torch.equal(before, after)
        torch.testing.assert_close(after, _hidden(copy.deepcopy(module)(inputs)))


def test_the_representation_names_the_gate():
    assert str(URLSTMCell(3, 5)) == "URLSTMCell(3, 5, gate='UR')"
    assert str(URLSTMCell(3, 5, bias=False, tie_input_gate=False)) == (
        "URLSTMCell(3, 5, gate='UR', tie_input_gate=False, bias=False)"
    )
    assert str(URGRUCell(3, 5, gate="-R")) == "URGRUCell(3, 5, gate='-R')"


def test_wrong_calls_are_refused_by_name():
    module = URLSTMCell(3, 5)
    with pytest.raises(ShapeError, match=r"input has 3 dimensions, expected 2: \(batch, input_size\), or 1"):
        module(torch.zeros(1, 4, 3))
    with pytest.raises(ShapeError, match=r"the hidden of state has the shape \(2, 5\), expected \(4, 5\)"):
        module(torch.zeros(4, 3), (torch.zeros(2, 5), torch.zeros(4, 5)))
    with pytest.raises(ShapeError, match=r"input_weight has the shape \(20, 3\), expected \(20, 2\)"):
        module(torch.zeros(4, 2))
    with pytest.raises(UsageError, match=r"hidden_size is -1, expected a whole number of at least 1"):
        URGRUCell(3, -1)
