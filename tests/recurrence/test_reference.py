"""The reference: derivatives, masks, direction, state and precision."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from urzoo.recurrence import Gating, scan, step

SIXTEEN_BIT = [torch.bfloat16, torch.float16]


@pytest.mark.parametrize("reverse", [False, True])
def test_gradients_are_the_derivatives(problem: Callable, gating: Gating, reverse: bool):
    case = problem(gating, batch=2, time=3, input_size=2, hidden_size=3, lengths=(2, 3), reverse=reverse)
    names = list(case.tensors)

    def function(*tensors: Tensor) -> tuple[Tensor, ...]:
        named = dict(zip(names, tensors, strict=True))
        state = tuple(named[name] for name in ("hidden", "cell") if name in named)
        outputs, final = scan(
            named["inputs"],
            named["input_weight"],
            named["recurrent_weight"],
            named["bias"],
            named.get("gate_bias"),
            state,
            gating=gating,
            mask=case.mask,
            reverse=reverse,
            backend="reference",
        )
        return outputs, *final

    assert torch.autograd.gradcheck(function, tuple(case.tensors.values()))


def test_the_last_output_is_the_final_hidden_state(problem: Callable, gating: Gating):
    case = problem(gating)
    outputs, final = case.run()
    assert torch.equal(outputs[:, -1], final[0])


def test_chunks_equal_the_whole(problem: Callable, gating: Gating):
    case = problem(gating, time=7)
    whole, final = case.run()
    weights = (case.tensors["input_weight"], case.tensors["recurrent_weight"], case.tensors["bias"])
    state, chunks = case.state, []
    for chunk in case.tensors["inputs"].split([3, 1, 3], dim=1):
        outputs, state = scan(chunk, *weights, case.tensors.get("gate_bias"), state, gating=gating, backend="reference")
        chunks.append(outputs)
    torch.testing.assert_close(torch.cat(chunks, 1), whole)
    torch.testing.assert_close(state[-1], final[-1])


def test_steps_equal_the_scan(problem: Callable, gating: Gating):
    case = problem(gating)
    outputs, final = case.run()
    weights = (case.tensors["input_weight"], case.tensors["recurrent_weight"], case.tensors["bias"])
    state = case.state
    for time, inputs in enumerate(case.tensors["inputs"].unbind(1)):
        state = step(inputs, *weights, case.tensors.get("gate_bias"), state, gating=gating, backend="reference")
        torch.testing.assert_close(state[0], outputs[:, time])
    torch.testing.assert_close(state[-1], final[-1])


def test_the_reverse_direction_is_the_scan_of_the_flipped_sequence(problem: Callable, some_gating: Gating):
    case = problem(some_gating, reverse=True)
    outputs, final = case.run()
    weights = (case.tensors["input_weight"], case.tensors["recurrent_weight"], case.tensors["bias"])
    flipped, flipped_final = scan(
        case.tensors["inputs"].flip(1),
        *weights,
        case.tensors.get("gate_bias"),
        case.state,
        gating=some_gating,
        backend="reference",
    )
    torch.testing.assert_close(outputs, flipped.flip(1))
    torch.testing.assert_close(final[-1], flipped_final[-1])


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("pad", ["left", "right"])
def test_padding_does_not_change_a_row(problem: Callable, some_gating: Gating, pad: str, reverse: bool):
    lengths = (4, 1, 6)
    case = problem(some_gating, time=6, lengths=lengths, pad=pad, reverse=reverse)
    # Whatever stands in the padding, NaN included, reaches neither results nor gradients.
    with torch.no_grad():
        case.tensors["inputs"][~case.mask] = float("nan")
    outputs, final = case.run()
    gradients = torch.autograd.grad(outputs[case.mask].sum() + final[-1].sum(), list(case.tensors.values()))
    assert all(torch.isfinite(gradient).all() for gradient in gradients)

    weights = (case.tensors["input_weight"], case.tensors["recurrent_weight"], case.tensors["bias"])
    total = 0.0
    for row, length in enumerate(lengths):
        real = slice(0, length) if pad == "right" else slice(6 - length, 6)
        alone, alone_final = scan(
            case.tensors["inputs"][row : row + 1, real],
            *weights,
            case.tensors.get("gate_bias"),
            tuple(part[row : row + 1] for part in case.state),
            gating=some_gating,
            reverse=reverse,
            backend="reference",
        )
        torch.testing.assert_close(outputs[row : row + 1, real], alone)
        torch.testing.assert_close(final[-1][row : row + 1], alone_final[-1])
        total = total + alone.sum() + alone_final[-1].sum()
    expected = torch.autograd.grad(total, list(case.tensors.values()))
    for name, gradient, wanted in zip(case.tensors, gradients, expected, strict=True):
        torch.testing.assert_close(gradient, wanted, msg=lambda text, name=name: f"{name}: {text}")


def test_a_row_without_real_steps_keeps_its_state(problem: Callable):
    case = problem(Gating(), lengths=(0, 5, 2))
    outputs, (hidden, cell) = case.run()
    assert torch.equal(hidden[0], case.tensors["hidden"][0])
    assert torch.equal(cell[0], case.tensors["cell"][0])
    assert torch.equal(outputs[0], case.tensors["hidden"][0].expand(5, -1))


def test_nan_in_one_row_stays_in_that_row(problem: Callable, gating: Gating):
    case = problem(gating)
    with torch.no_grad():
        case.tensors["inputs"][1, 2, 0] = float("nan")
    outputs, final = case.run()
    assert torch.isnan(outputs[1, 2:]).all()
    assert torch.isnan(final[-1][1]).all()
    assert torch.isfinite(outputs[[0, 2]]).all()
    assert torch.isfinite(outputs[1, :2]).all()


def test_a_missing_state_is_zeros(problem: Callable, gating: Gating):
    case = problem(gating)
    zeros = {name: torch.zeros_like(case.tensors[name]) for name in ("hidden", "cell") if name in case.tensors}
    expected, _ = type(case)(gating, {**case.tensors, **zeros}, None, False, case.upstream).run()
    weights = (case.tensors["input_weight"], case.tensors["recurrent_weight"], case.tensors["bias"])
    outputs, _ = scan(
        case.tensors["inputs"], *weights, case.tensors.get("gate_bias"), gating=gating, backend="reference"
    )
    assert torch.equal(outputs, expected)


@pytest.mark.parametrize("dtype", SIXTEEN_BIT)
def test_sixteen_bits_carry_the_memory_in_float32(problem: Callable, some_gating: Gating, dtype: torch.dtype):
    case = problem(some_gating, time=40)
    exact, low = case.results(), case.to(dtype).run()
    assert low[0].dtype == dtype
    assert low[1][-1].dtype == torch.float32
    assert (low[0].double() - exact["outputs"]).abs().max() < 8 * torch.finfo(dtype).eps
    results = case.to(dtype).results()
    for name, wanted in exact.items():
        assert (results[name] - wanted).norm() < 10 * torch.finfo(dtype).eps * wanted.norm(), name


def test_autocast_rounds_the_products_and_leaves_float32_gradients(problem: Callable, some_gating: Gating):
    case = problem(some_gating, time=40).to(torch.float32)
    exact = case.to(torch.float64).results()
    with torch.autocast("cpu", torch.bfloat16):
        outputs, final = case.run()
        stepped = step(
            case.tensors["inputs"][:, 0],
            case.tensors["input_weight"],
            case.tensors["recurrent_weight"],
            case.tensors["bias"],
            case.tensors.get("gate_bias"),
            case.state,
            gating=some_gating,
            backend="reference",
        )
    assert outputs.dtype == torch.bfloat16
    assert final[-1].dtype == torch.float32
    torch.testing.assert_close(stepped[0].float(), outputs[:, 0].float(), rtol=0, atol=1e-2)
    parts = zip((outputs, *final), case.upstream, strict=True)
    loss = sum((part.double() * grad).sum() for part, grad in parts)
    for (name, tensor), gradient in zip(
        case.tensors.items(), torch.autograd.grad(loss, list(case.tensors.values())), strict=True
    ):
        wanted = exact[f"grad_{name}"]
        assert gradient.dtype == tensor.dtype == torch.float32
        assert (gradient - wanted).norm() < 10 * torch.finfo(torch.bfloat16).eps * wanted.norm(), name
        if name.endswith("weight"):
            # More digits than bfloat16 holds: the gradient was not rounded on its way to the master weight.
            assert not torch.equal(gradient, gradient.bfloat16().float())


def test_autocast_leaves_float64_alone(problem: Callable):
    case = problem(Gating())
    expected, _ = case.run()
    with torch.autocast("cpu", torch.bfloat16):
        outputs, _ = case.run()
    assert torch.equal(outputs, expected)


def test_dynamo_traces_the_scan_in_one_graph(problem: Callable, some_gating: Gating):
    case = problem(some_gating, lengths=(5, 2, 3)).to(torch.float32)

    def function(inputs: Tensor, mask: Tensor) -> Tensor:
        weights = (case.tensors["input_weight"], case.tensors["recurrent_weight"], case.tensors["bias"])
        outputs, state = scan(
            inputs, *weights, case.tensors.get("gate_bias"), gating=some_gating, mask=mask, backend="reference"
        )
        return outputs.sum() + state[-1].sum()

    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(case.tensors["inputs"], case.mask), function(case.tensors["inputs"], case.mask))


def test_the_scan_leaves_its_arguments_alone(problem: Callable, gating: Gating):
    case = problem(gating, lengths=(5, 2, 3))
    before = {name: tensor.detach().clone() for name, tensor in case.tensors.items()}
    case.results()
    assert all(torch.equal(tensor, before[name]) for name, tensor in case.tensors.items())
