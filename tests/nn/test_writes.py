"""Whatever way the parameters are written to between two calls without gradients, the second call uses the new ones.

A module that kept anything of its parameters would have to notice all of these, and torch counts only some.
"""

import copy
from collections.abc import Callable
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, parametrize, prune, vector_to_parameters

from urzoo.nn import URGRU, URLSTM, URGRUCell, URLSTMCell

Write = Callable[[nn.Module], None]
MODULES: dict[str, Callable[[], nn.Module]] = {
    "lstm": partial(URLSTM, 3, 21),
    "untied lstm": partial(URLSTM, 3, 21, gate="OM", tie_input_gate=False),
    "gru": partial(URGRU, 3, 21),
    "lstm cell": partial(URLSTMCell, 3, 21),
    "gru cell": partial(URGRUCell, 3, 21),
}
SHAPES = {"one step": (1, 1), "one step of many rows": (1, 33), "a sequence": (5, 2)}
WRITES: dict[str, Write] = {}


def write(function: Write) -> Write:
    WRITES[function.__name__] = function
    return function


def each(change: Callable[[nn.Parameter], object]) -> Write:
    """A way of writing that is the same for every parameter."""

    def run(module: nn.Module) -> None:
        with torch.no_grad():
            for parameter in module.parameters():
                change(parameter)

    return run


def assign(tensor: Tensor) -> None:
    tensor[1:3] = 0.5


def numpy_view(parameter: nn.Parameter) -> None:
    view = parameter.detach().numpy()
    view *= 0.5


def out(parameter: nn.Parameter) -> None:
    torch.mul(parameter.detach(), 0.5, out=parameter)


def data_attribute(parameter: nn.Parameter) -> None:
    parameter.data = parameter.data * 0.5


def storage_bytes(parameter: nn.Parameter) -> None:
    parameter.untyped_storage().copy_((parameter.detach() * 0.5).untyped_storage())


def storage_resized(parameter: nn.Parameter) -> None:
    """As sharded data parallelism frees a parameter and fills it again."""
    wanted = parameter.detach() * 0.5
    storage = parameter.untyped_storage()
    storage.resize_(0)
    storage.resize_(wanted.nbytes)
    storage.copy_(wanted.untyped_storage())


def swap(parameter: nn.Parameter) -> None:
    torch.utils.swap_tensors(parameter, nn.Parameter(parameter.detach() * 0.5, parameter.requires_grad))


WRITES |= {
    "mul_": each(lambda parameter: parameter.mul_(0.5)),
    "copy_": each(lambda parameter: parameter.copy_(parameter * 0.5)),
    "clamp_": each(lambda parameter: parameter.clamp_(-0.05, 0.05)),
    "lerp_": each(lambda parameter: parameter.lerp_(torch.ones_like(parameter), 0.1)),
    "zero_": each(lambda parameter: parameter.zero_()),
    "an item": each(assign),
    "a slice": each(lambda parameter: parameter[1:].mul_(0.5)),
    "a transposed view": each(lambda parameter: parameter.t().mul_(0.5)),
    "a detached alias": each(lambda parameter: parameter.detach().mul_(0.5)),
    "out": each(out),
    "data.copy_": each(lambda parameter: parameter.data.copy_(parameter.data * 0.5)),
    "data.mul_": each(lambda parameter: parameter.data.mul_(0.5)),
    "data.clamp_": each(lambda parameter: parameter.data.clamp_(-0.05, 0.05)),
    "data item": each(lambda parameter: assign(parameter.data)),
    "set_": each(lambda parameter: parameter.set_(parameter.detach() * 0.5)),
    "data replaced": each(data_attribute),
    "NumPy view": each(numpy_view),
    "DLPack view": each(lambda parameter: torch.from_dlpack(parameter.detach()).mul_(0.5)),
    "storage written": each(storage_bytes),
    "storage resized": each(storage_resized),
    "swap_tensors": each(swap),
    "nn.init": each(lambda parameter: nn.init.constant_(parameter, 0.05)),
}


@write
def in_inference_mode(module: nn.Module) -> None:
    with torch.inference_mode():
        for parameter in module.parameters():
            parameter.mul_(0.5)


@write
def foreach(module: nn.Module) -> None:
    with torch.no_grad():
        torch._foreach_mul_(list(module.parameters()), 0.5)


@write
def apply_with_data(module: nn.Module) -> None:
    def halve(part: nn.Module) -> None:
        for parameter in part.parameters(recurse=False):
            parameter.data.mul_(0.5)

    module.apply(halve)


@write
def reset_parameters(module: nn.Module) -> None:
    module.reset_parameters()


@write
def load_state_dict(module: nn.Module) -> None:
    module.load_state_dict({name: tensor * 0.5 for name, tensor in module.state_dict().items()})


@write
def load_state_dict_by_assignment(module: nn.Module) -> None:
    module.load_state_dict({name: tensor * 0.5 for name, tensor in module.state_dict().items()}, assign=True)


@write
def state_dict_alias(module: nn.Module) -> None:
    for tensor in module.state_dict().values():
        tensor.mul_(0.5)


@write
def another_parameter(module: nn.Module) -> None:
    for name, parameter in list(module.named_parameters()):
        setattr(module, name, nn.Parameter(parameter.detach() * 0.5))


@write
def to_16_bits_and_back(module: nn.Module) -> None:
    module.bfloat16().float()


@write
def conversion_that_swaps(module: nn.Module) -> None:
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        module.bfloat16().float()
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)


@write
def vector_of_all(module: nn.Module) -> None:
    vector_to_parameters(parameters_to_vector(module.parameters()).detach() * 0.5, module.parameters())


@write
def flat_buffer(module: nn.Module) -> None:
    """The parameters are views of one buffer, and that is written to after a call has seen them."""
    parameters = list(module.parameters())
    flat = torch.cat([parameter.detach().flatten() for parameter in parameters])
    for parameter, part in zip(parameters, flat.split([each.numel() for each in parameters]), strict=True):
        parameter.data = part.view_as(parameter)
    for shape in SHAPES.values():
        call(module, shape)
    flat.mul_(0.5)


@write
def moving_average(module: nn.Module) -> None:
    target = copy.deepcopy(module)
    target.reset_parameters()
    for mine, theirs in zip(module.parameters(), target.parameters(), strict=True):
        mine.data.mul_(0.9).add_(theirs.data, alpha=0.1)


@write
def averaged_model(module: nn.Module) -> None:
    averaged = torch.optim.swa_utils.AveragedModel(module)
    averaged.module = module
    other = copy.deepcopy(module)
    other.reset_parameters()
    averaged.n_averaged += 1
    averaged.update_parameters(other)


@write
def pruning(module: nn.Module) -> None:
    for name, parameter in list(module.named_parameters()):
        prune.random_unstructured(module, name, parameter.numel() // 2)


@write
def parametrization(module: nn.Module) -> None:
    class Halve(nn.Module):
        def forward(self, tensor: Tensor) -> Tensor:
            return tensor * 0.5

    for name, _ in list(module.named_parameters()):
        parametrize.register_parametrization(module, name, Halve())


@write
def functional_sgd(module: nn.Module) -> None:
    parameters = list(module.parameters())
    with torch.no_grad():
        grads = [torch.ones_like(parameter) for parameter in parameters]
        options = {"weight_decay": 0.0, "momentum": 0.0, "dampening": 0.0, "nesterov": False, "maximize": False}
        torch._fused_sgd_(parameters, grads, [], lr=0.1, is_first_step=True, **options)


@write
def functional_adam(module: nn.Module) -> None:
    parameters = list(module.parameters())
    zeros = [[torch.zeros_like(parameter) for parameter in parameters] for _ in range(2)]
    with torch.no_grad():
        grads = [torch.ones_like(parameter) for parameter in parameters]
        steps = [torch.ones(()) for _ in parameters]
        options = {"beta1": 0.9, "beta2": 0.99, "weight_decay": 0.0, "eps": 1e-8, "amsgrad": False, "maximize": False}
        torch._fused_adam_(parameters, grads, *zeros, [], steps, lr=0.1, **options)


def optimiser_step(module: nn.Module, kind: type[torch.optim.Optimizer], **options: bool) -> None:
    optimiser = kind(module.parameters(), lr=0.1, **options)
    for parameter in module.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimiser.step()


WRITES |= {
    f"{kind.__name__} {way}": partial(optimiser_step, kind=kind, **{way: True})
    for kind in (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.Adagrad)
    for way in ("foreach", "fused")
}


@torch.no_grad()
def call(module: nn.Module, shape: tuple[int, int]) -> list[Tensor]:
    """Outputs and final state of a sequence; a cell takes its steps one by one."""
    inputs = torch.randn(*shape, 3, generator=torch.Generator().manual_seed(1))
    if isinstance(module, URLSTM | URGRU):
        outputs, state = module(inputs)
        return [outputs, *(state if isinstance(state, tuple) else (state,))]
    state = None
    for row in inputs:
        state = module(row, state)
    return list(state) if isinstance(state, tuple) else [state]


def fresh(module: nn.Module, make: Callable[[], nn.Module]) -> nn.Module:
    """A module that has never been called, on the reference, with the present parameters of another."""
    other = make()
    other.backend = "reference"
    for name, _ in list(other.named_parameters()):
        setattr(other, name, nn.Parameter(getattr(module, name).detach().clone()))
    return other


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize("way", WRITES)
def test_a_write_is_seen_by_the_next_call(way: str, module: str):
    torch.manual_seed(0)
    written = MODULES[module]()
    before = {name: call(written, shape) for name, shape in SHAPES.items()}
    WRITES[way](written)
    expected_of = fresh(written, MODULES[module])
    for name, shape in SHAPES.items():
        found = call(written, shape)
        assert not torch.equal(found[0], before[name][0])
        for ours, reference in zip(found, call(expected_of, shape), strict=True):
            torch.testing.assert_close(ours, reference)


SEVERAL = sorted(set(WRITES) - {"pruning", "parametrization"})  # after these the parameters have other names


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.sampled_from(sorted(MODULES)), st.lists(st.sampled_from(SEVERAL), min_size=2, max_size=5), st.data())
def test_so_are_many_in_a_row(module: str, ways: list[str], data: st.DataObject):
    torch.manual_seed(0)
    written = MODULES[module]()
    shapes = st.sampled_from(list(SHAPES.values()))
    for way in ways:
        call(written, data.draw(shapes))
        WRITES[way](written)
        shape = data.draw(shapes)
        for ours, reference in zip(call(written, shape), call(fresh(written, MODULES[module]), shape), strict=True):
            torch.testing.assert_close(ours, reference)
