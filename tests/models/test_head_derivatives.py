"""Every derivative of every head where no back end is named: second, forward, mapped over samples and over weights."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.func import functional_call, grad, hessian, jvp, stack_module_state, vmap

from urzoo import URLSTMConfig
from urzoo.models import URLSTMForCausalLM, URLSTMForImageClassification, URLSTMForSequenceClassification

# torch says so of every operator that it maps over one sample after another.
pytestmark = [
    pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning"),
    pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated"),  # of forward derivatives
]

TEXTS, LABELS = torch.randint(30, (3, 6)), torch.tensor([0, 2, 1])
MASK = torch.tensor([[1] * 6, [0, 0, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0]])
EVERY = ["last", "mean", "max"]
HEADS: dict[str, tuple[type, dict, dict[str, Tensor], dict]] = {
    **{
        f"texts {pooling}": (
            URLSTMForSequenceClassification,
            {"vocab_size": 30, "pooling": pooling},
            {"input_ids": TEXTS, "labels": LABELS},
            {},
        )
        for pooling in (["last"], ["mean"], ["max"])
    },
    "padded texts both ways": (
        URLSTMForSequenceClassification,
        {"vocab_size": 30, "pooling": EVERY, "bidirectional": True},
        {"input_ids": TEXTS, "attention_mask": MASK, "labels": LABELS},
        {},
    ),
    "series": (
        URLSTMForSequenceClassification,
        {"input_size": 3, "pooling": EVERY, "bidirectional": True, "cell": "gru", "num_layers": 2},
        {"inputs_embeds": torch.randn(3, 6, 3), "labels": LABELS},
        {},
    ),
    "images": (
        URLSTMForImageClassification,
        {"input_size": 3, "pooling": ["max", "last"]},
        {"pixel_values": torch.randn(3, 6, 3), "labels": LABELS},
        {},
    ),
    "language model": (URLSTMForCausalLM, {"vocab_size": 30}, {"input_ids": TEXTS, "labels": TEXTS}, {}),
    "language model without scores": (
        URLSTMForCausalLM,
        {"vocab_size": 30, "embedding_size": 6},
        {"input_ids": TEXTS, "labels": TEXTS},
        {"compute_logits": False},
    ),
    "adaptive softmax without scores": (
        URLSTMForCausalLM,
        {"vocab_size": 30, "adaptive_cutoffs": [9]},
        {"input_ids": TEXTS, "labels": TEXTS.clamp(min=4)},
        {"compute_logits": False},
    ),
}
Weights = dict[str, Tensor]


@pytest.fixture(params=HEADS)
def case(request) -> tuple[torch.nn.Module, Callable[..., Tensor], dict[str, Tensor]]:
    """A model, its loss as a function of weights and inputs, and the inputs."""
    torch.manual_seed(0)
    model_class, fields, inputs, options = HEADS[request.param]
    # Without a hidden layer, whose corners would disturb the differences.
    config = URLSTMConfig(hidden_size=8, num_labels=3, initializer_range=1.0, head_hidden_size=0, **fields)
    model = model_class(config).eval()

    def loss(weights: Weights, inputs: dict[str, Tensor]) -> Tensor:
        return functional_call(model, weights, (), {"use_cache": False, **inputs, **options}).loss

    return model, loss, inputs


def own_weights(model: torch.nn.Module) -> Weights:
    return {name: value.detach() for name, value in model.named_parameters()}


def row(inputs: dict[str, Tensor], number: int) -> dict[str, Tensor]:
    return {name: value[number] for name, value in inputs.items()}


def test_second_derivatives_are_the_differences_of_first_ones(case):
    model, loss, inputs = case
    weights = dict(model.named_parameters())
    directions = {name: torch.randn_like(value) for name, value in weights.items()}
    first = torch.autograd.grad(loss(weights, inputs), list(weights.values()), create_graph=True)
    along = sum((gradient * directions[name]).sum() for name, gradient in zip(weights, first, strict=True))
    second = torch.autograd.grad(along, list(weights.values()))

    exact = {name: value.double() if value.is_floating_point() else value for name, value in inputs.items()}

    def gradients(step: float) -> tuple[Tensor, ...]:
        moved = {
            name: (value.detach().double() + step * directions[name]).requires_grad_()
            for name, value in weights.items()
        }
        return torch.autograd.grad(loss(moved, exact), list(moved.values()))

    # The language model's scores are float32 in any case, too coarse for a small step; a large one crosses maxima.
    step = 1e-3 if isinstance(model, URLSTMForCausalLM) else 1e-5
    for found, above, below in zip(second, gradients(step), gradients(-step), strict=True):
        torch.testing.assert_close(found.double(), (above - below) / (2 * step), atol=2e-3, rtol=1e-3)


def test_forward_derivatives_are_the_gradients_along_a_direction(case):
    model, loss, inputs = case
    weights = own_weights(model)
    directions = {name: torch.randn_like(value) for name, value in weights.items()}
    value, tangent = jvp(lambda weights: loss(weights, inputs), (weights,), (directions,))
    gradients = grad(loss)(weights, inputs)
    torch.testing.assert_close(value, loss(weights, inputs))
    torch.testing.assert_close(tangent, sum((gradients[name] * directions[name]).sum() for name in weights))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_of_each_sample_are_those_of_it_alone(case, dtype):
    model, loss, inputs = case

    def of_one(weights: Weights, inputs: dict[str, Tensor]) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype is torch.bfloat16):
            return loss(weights, {name: value[None] for name, value in inputs.items()})

    close = {} if dtype is torch.float32 else {"atol": 0.02, "rtol": 0.02}
    weights = own_weights(model)
    mapped = vmap(grad(of_one), in_dims=(None, 0))(weights, inputs)
    losses = vmap(of_one, in_dims=(None, 0))(weights, inputs)
    model.zero_grad()
    for number in range(3):
        alone = of_one(dict(model.named_parameters()), row(inputs, number))
        torch.testing.assert_close(losses[number], alone.detach(), **close)
        gradients = torch.autograd.grad(alone, list(model.parameters()))
        for name, gradient in zip(weights, gradients, strict=True):
            torch.testing.assert_close(mapped[name][number], gradient, **close, msg=name)


def test_several_models_of_a_kind_run_as_one(case):
    model, loss, inputs = case
    other = type(model)(model.config).eval()
    together, _ = stack_module_state([model, other])
    found = vmap(loss, in_dims=(0, None))(together, inputs)
    expected = torch.stack([loss(own_weights(one), inputs) for one in (model, other)])
    torch.testing.assert_close(found.detach(), expected)


def test_the_hessian_of_the_biases_is_symmetric(case):
    model, loss, inputs = case
    weights = own_weights(model)
    name = next(name for name in weights if "forget_bias" in name)
    found = hessian(lambda bias: loss({**weights, name: bias}, inputs))(weights[name])
    assert found.abs().max() > 0
    torch.testing.assert_close(found, found.T)
