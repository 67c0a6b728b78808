"""Derivatives beyond the first reverse one: right where no back end is named, one line where one is."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, vjp, vmap

from tests.recurrence.conftest import gating_id
from urzoo.errors import BackendError
from urzoo.nn import URLSTM, URGRUCell, URLSTMCell
from urzoo.recurrence import Gating, backend_for, backends, scan, step

pytestmark = [
    pytest.mark.skipif(bool(backends()["cpu"]), reason=backends()["cpu"]),
    # torch's own decompositions for forward derivatives use it.
    pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated"),
    # Of vmap, which takes our operators row by row: newer versions of torch say so.
    pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning"),
]

GATINGS = [Gating(), Gating("OM", tie_input_gate=False), Gating("UR", "gru")]
each_gating = pytest.mark.parametrize("gating", GATINGS, ids=gating_id)
Function = Callable[[Tensor], Tensor]


def problem(gating: Gating, *, backend: str | None, one_step: bool = False, **options: object) -> Function:
    """The outputs of a scan as a function of its inputs `(batch, time, 3)`, or those of one step `(batch, 3)`."""
    generator = torch.Generator().manual_seed(0)
    rows = len(gating.blocks) * 4
    shapes = [(rows, 3), (rows, 4), (rows,)] + [(4,)] * gating.uses_gate_bias
    weights = [torch.randn(shape, generator=generator, requires_grad=True) for shape in shapes]

    def run(inputs: Tensor) -> Tensor:
        if one_step:
            return step(inputs, *weights, gating=gating, backend=backend)[0]
        return scan(inputs, *weights, gating=gating, backend=backend, **options)[0]

    assert backend_for(torch.zeros(1), gating) == "cpu"
    return run


def inputs_for(*, one_step: bool) -> Tensor:
    shape = (2, 3) if one_step else (2, 5, 3)
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def by_dual_tensors(run: Function) -> Function:
    def tangent(inputs: Tensor) -> Tensor:
        with forward_ad.dual_level(), torch.no_grad():
            found = forward_ad.unpack_dual(run(forward_ad.make_dual(inputs, torch.ones_like(inputs)))).tangent
        assert found is not None
        return found

    return tangent


def twice(run: Function) -> Function:
    """The gradient of the gradient's square."""

    def derivative(inputs: Tensor) -> Tensor:
        inputs = inputs.detach().requires_grad_()
        (first,) = torch.autograd.grad(run(inputs).sin().sum(), inputs, create_graph=True)
        return torch.autograd.grad(first.square().sum(), inputs)[0]

    return derivative


def three_times(run: Function) -> Function:
    def derivative(inputs: Tensor) -> Tensor:
        inputs = inputs.detach().requires_grad_()
        (first,) = torch.autograd.grad(run(inputs).sin().sum(), inputs, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), inputs, create_graph=True)
        return torch.autograd.grad(second.square().sum(), inputs)[0]

    return derivative


TRANSFORMS: dict[str, Callable[[Function], Function]] = {
    "grad": lambda run: grad(lambda inputs: run(inputs).sin().sum()),
    "vjp": lambda run: lambda inputs: vjp(run, inputs)[1](torch.ones_like(run(inputs)))[0],
    "jvp": lambda run: lambda inputs: jvp(run, (inputs,), (torch.ones_like(inputs),))[1],
    "jacrev": jacrev,
    "jacfwd": jacfwd,
    "hessian": lambda run: hessian(lambda inputs: run(inputs).sin().sum()),
    "per-sample gradients": lambda run: vmap(grad(lambda row: run(row[None]).sin().sum())),
    "dual tensors": by_dual_tensors,
    "create_graph": twice,
    "create_graph twice": three_times,
}


@each_gating
@pytest.mark.parametrize("one_step", [False, True])
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_a_transform_gives_what_it_gives_of_the_reference(transform: str, one_step: bool, gating: Gating):
    inputs = inputs_for(one_step=one_step)
    found, expected = (
        TRANSFORMS[transform](problem(gating, backend=backend, one_step=one_step))(inputs)
        for backend in (None, "reference")
    )
    assert expected.abs().max() > 1e-3
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("one_step", [False, True])
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_a_back_end_that_was_named_refuses_it_in_one_line(transform: str, one_step: bool):
    inputs = inputs_for(one_step=one_step)
    with pytest.raises(BackendError, match=r"^backend 'cpu' cannot compute .* backend='reference'\.$"):
        TRANSFORMS[transform](problem(GATINGS[0], backend="cpu", one_step=one_step))(inputs)


def test_vmap_alone_runs_on_a_back_end_that_was_named():
    inputs = torch.randn(3, 2, 5, 3)
    run = problem(GATINGS[0], backend="cpu")
    torch.testing.assert_close(vmap(run)(inputs), torch.stack([run(part) for part in inputs]))


@each_gating
@pytest.mark.parametrize("save", ["activations", "recompute"])
@pytest.mark.parametrize("reverse", [False, True])
def test_second_derivatives_of_every_argument_agree_with_the_reference(gating: Gating, reverse: bool, save: str):
    generator = torch.Generator().manual_seed(0)
    rows, batch, time = len(gating.blocks) * 4, 3, 5
    shapes = [(batch, time, 2), (rows, 2), (rows, 4), (rows,)] + [(4,)] * gating.uses_gate_bias
    arguments = [torch.randn(shape, generator=generator, requires_grad=True) for shape in shapes]
    state = tuple(
        torch.randn(batch, 4, generator=generator, requires_grad=True) for _ in range(len(gating.cell) // 2 + 1)
    )
    state = state[: 2 if gating.cell == "lstm" else 1]
    mask = torch.arange(time) < torch.tensor([[5], [3], [1]])
    leaves = [*arguments, *state]
    results = []
    for backend in (None, "reference"):
        outputs, final = scan(
            *arguments,
            *([None] * (5 - len(arguments))),
            state,
            gating=gating,
            mask=mask,
            reverse=reverse,
            backend=backend,
            save=save,
        )
        loss = outputs.sin().sum() + sum(part.cos().sum() for part in final)
        first = torch.autograd.grad(loss, leaves, create_graph=True)
        results.append(torch.autograd.grad(sum(part.square().sum() for part in first), leaves))
    for ours, reference in zip(*results, strict=True):
        torch.testing.assert_close(ours, reference, rtol=1e-4, atol=1e-4)


def test_a_gradient_penalty_trains_as_on_the_reference():
    found = []
    for backend in (None, "reference"):
        torch.manual_seed(0)
        layer = URLSTM(3, 4, 2, bidirectional=True, backend=backend)
        inputs = torch.randn(5, 2, 3, requires_grad=True)
        (gradient,) = torch.autograd.grad(layer(inputs)[0].sum(), inputs, create_graph=True)
        (gradient.norm() - 1).square().backward()
        found.append([parameter.grad for parameter in layer.parameters()])
    for ours, reference in zip(*found, strict=True):
        torch.testing.assert_close(ours, reference, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("cell", [URLSTMCell, URGRUCell])
def test_ensembles_and_gradients_by_parameters_work(cell: type):
    modules = [cell(3, 4) for _ in range(3)]
    stacked = {
        name: torch.stack([getattr(each, name).detach() for each in modules])
        for name, _ in modules[0].named_parameters()
    }
    inputs = torch.randn(2, 3)

    def hidden(parameters: dict[str, Tensor]) -> Tensor:
        found = functional_call(modules[0], parameters, (inputs,))
        return found if isinstance(found, Tensor) else found[0]

    torch.testing.assert_close(
        vmap(hidden)(stacked), torch.stack([hidden(dict(each.named_parameters())) for each in modules])
    )
    gradients = vmap(grad(lambda parameters: hidden(parameters).sum()))(stacked)
    for number, each in enumerate(modules):
        hidden(dict(each.named_parameters())).sum().backward()
        for name, parameter in each.named_parameters():
            torch.testing.assert_close(gradients[name][number], parameter.grad)


def test_a_compiled_function_never_gives_forward_derivatives_of_zero():
    run = problem(GATINGS[0], backend=None)
    inputs = inputs_for(one_step=False)
    expected = TRANSFORMS["jvp"](run)(inputs)
    compiled = torch.compile(TRANSFORMS["jvp"](run), backend="aot_eager")
    try:
        found = compiled(inputs)
    except RuntimeError as error:
        pytest.skip(f"torch refuses: {error}")
    torch.testing.assert_close(found, expected)
