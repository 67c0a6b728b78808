"""Models that read live input: generation with the weights read once, classifiers that take a sequence in pieces."""

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from torch.nn.utils import prune

import urzoo
from urzoo import URLSTMConfig, URLSTMForCausalLM, URLSTMForImageClassification, URLSTMForSequenceClassification
from urzoo.errors import ShapeError, UrzooError, UsageError
from urzoo.models.pooling_urlstm import PooledSoFar, pool
from urzoo.models.stream_urlstm import ClassifierStream

ALL = ["last", "mean", "max"]


def language_model(**fields: object) -> URLSTMForCausalLM:
    config = URLSTMConfig(**{"vocab_size": 50, "hidden_size": 24, "initializer_range": 1.0, **fields})
    return URLSTMForCausalLM(config).eval()


def images(**fields: object) -> URLSTMForImageClassification:
    fields = {"hidden_size": 24, "input_size": 1, "num_labels": 10, "pooling": ALL, **fields}
    return URLSTMForImageClassification(URLSTMConfig(**fields)).eval()


def texts(**fields: object) -> URLSTMForSequenceClassification:
    fields = {"vocab_size": 50, "hidden_size": 24, "num_labels": 2, "pooling": ALL, "initializer_range": 1.0, **fields}
    return URLSTMForSequenceClassification(URLSTMConfig(**fields)).eval()


def halve(model: torch.nn.Module) -> None:
    for parameter in model.parameters():
        parameter.data.mul_(0.5)


def optimise(model: torch.nn.Module) -> None:
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    torch.optim.SGD(model.parameters(), lr=0.1).step()


def load(model: torch.nn.Module) -> None:
    model.load_state_dict({name: tensor * 0.5 for name, tensor in model.state_dict().items()})


def convert(model: torch.nn.Module) -> None:
    model.to(torch.bfloat16)


WRITES = [halve, optimise, load, convert]


def generated(model: URLSTMForCausalLM, **options: object) -> torch.Tensor:
    """The scores of each step."""
    ids = torch.arange(10).view(2, 5)
    found = model.generate(
        ids, max_new_tokens=6, do_sample=False, output_logits=True, return_dict_in_generate=True, **options
    )
    return torch.stack(found.logits, dim=1)


@pytest.mark.parametrize("fields", [{}, {"cell": "gru"}, {"head_dtype": "bfloat16", "adaptive_cutoffs": [20]}], ids=str)
@pytest.mark.parametrize("write", WRITES)
def test_generate_has_the_weights_of_its_call(write: Callable, fields: dict):
    model = language_model(**fields)
    before = generated(model)
    write(model)
    expected = generated(copy.deepcopy(model))
    assert torch.equal(generated(model), expected)
    assert not torch.equal(before, expected)


@torch.no_grad()
@pytest.mark.parametrize("fields", [{}, {"head_dtype": "bfloat16"}, {"num_layers": 2, "layer_norm": True}], ids=str)
def test_generate_scores_as_a_call_with_all_tokens(fields: dict):
    model = language_model(**fields)
    ids = torch.arange(10).view(2, 5)
    found = model.generate(ids, max_new_tokens=6, do_sample=False, output_logits=True, return_dict_in_generate=True)
    whole = model(found.sequences).logits[:, 4:-1]
    tolerance = {"atol": 2e-2, "rtol": 2e-2} if "head_dtype" in fields else {}
    torch.testing.assert_close(torch.stack(found.logits, dim=1), whole, **tolerance)


def test_hooks_of_the_head_fire_at_every_token():
    model, hits = language_model(head_dtype="bfloat16"), []
    model.lm_head.register_forward_hook(lambda *_: hits.append(1))
    generated(model)
    assert len(hits) == 6


def test_beams_go_on_from_the_right_states():
    model = language_model()
    ids = torch.arange(10).view(2, 5)
    options = {"max_new_tokens": 6, "num_beams": 3, "do_sample": False}
    assert torch.equal(model.generate(ids, **options), model.generate(ids, use_cache=False, **options))


@pytest.mark.parametrize(
    "wrong",
    [
        {"labels": torch.full((2, 5), 50)},
        {"shift_labels": torch.zeros(2, 4, dtype=torch.int64)},
        {"labels": torch.arange(10).view(2, 5), "logits_to_keep": 1},
        {"attention_mask": torch.ones(2, 4)},
    ],
    ids=str,
)
def test_a_refused_call_leaves_the_state_as_it_was(wrong: dict):
    model, ids = language_model(), torch.arange(10).view(2, 5)
    cache = model(ids).cache
    before = list(cache.states)
    with pytest.raises(UrzooError):
        model(ids, cache=cache, **wrong)
    assert all(now is then for now, then in zip(cache.states, before, strict=True))
    assert cache.get_seq_length() == 5


def test_an_interrupted_call_leaves_the_state_as_it_was():
    model, ids = language_model(num_layers=2), torch.arange(10).view(2, 5)
    cache = model(ids).cache
    before = list(cache.states)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    model.model.layers[1].register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        model(ids, cache=cache)
    assert all(now is then for now, then in zip(cache.states, before, strict=True))


def pieces(steps: torch.Tensor, lengths: list[int]) -> tuple[torch.Tensor, ...]:
    return steps.split([*lengths, steps.shape[1] - sum(lengths)], dim=1)


@torch.no_grad()
@pytest.mark.parametrize("lengths", [[], [1] * 30, [1, 2, 7, 8, 9], [16]], ids=str)
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(
    "build",
    [
        images,
        lambda: images(cell="gru"),
        lambda: images(gate="OM", tie_input_gate=False),
        lambda: images(num_layers=2, layer_norm=True, residual=True),
        texts,
        lambda: texts(vocab_size=None, input_size=20, pooling=["mean"]),
    ],
)
def test_a_classifier_that_reads_pieces_has_the_bits_of_the_whole(build: Callable, batch: int, lengths: list[int]):
    model = build()
    config = model.config
    if config.vocab_size is None:
        steps = torch.randn(batch, 31, config.input_size)
        given = {"pixel_values" if isinstance(model, URLSTMForImageClassification) else "inputs_embeds": steps}
    else:
        steps = torch.randint(config.vocab_size, (batch, 31))
        given = {"input_ids": steps}
    stream = model.stream()
    for piece in pieces(steps, lengths):
        stream.read(piece)
    assert torch.equal(stream.logits, model(**given).logits)
    # It goes on after being asked.
    stream.read(steps)
    given = {name: torch.cat([value, value], dim=1) for name, value in given.items()}
    assert torch.equal(stream.logits, model(**given).logits)


@torch.no_grad()
@pytest.mark.parametrize("time", [1, 7, 8, 9, 31, 300])
@pytest.mark.parametrize("size", [1, 40, 512])
def test_what_is_pooled_so_far_has_the_bits_of_the_whole(size: int, time: int):
    config, states = URLSTMConfig(hidden_size=size, pooling=ALL), torch.randn(5, time, size)
    far = PooledSoFar(config)
    for step in states.split(1, dim=1):
        far.add(step)
    whole = pool(states, None, config)
    assert torch.equal(far.value, whole)
    torch.testing.assert_close(whole[:, size : 2 * size], states.mean(dim=1))
    # So has a row that is padded at its end.
    padded = torch.nn.functional.pad(states, (0, 0, 0, 5), value=7.0)
    assert torch.equal(pool(padded, torch.arange(time + 5).expand(5, -1) < time, config), whole)


@torch.no_grad()
@pytest.mark.parametrize("write", [halve, optimise, load])
def test_a_classifiers_stream_has_the_weights_of_its_beginning_until_it_is_reset(write: Callable):
    model, steps = images(), torch.randn(1, 9, 1)
    stream = model.stream()
    before = model(steps).logits
    with torch.enable_grad():
        write(model)
    stream.read(steps)
    assert torch.equal(stream.logits, before)
    stream.reset()
    stream.read(steps)
    assert torch.equal(stream.logits, model(steps).logits)
    assert not torch.equal(stream.logits, before)


def test_a_pruned_classifier_has_a_stream():
    """The masked weights of a call with gradients cannot be copied."""
    model, steps = images(), torch.randn(1, 9, 1)
    for part, name in ((model.model.layers[0].recurrence, "weight_hh_l0"), (model.head.out_proj, "weight")):
        prune.l1_unstructured(part, name, 0.5)
    model(steps).logits.sum().backward()
    torch.optim.SGD(model.parameters(), lr=1.0).step()
    stream = model.stream()
    stream.read(steps)
    assert torch.equal(stream.logits, model(steps).logits)


@torch.no_grad()
@pytest.mark.parametrize("again", [copy.deepcopy, lambda stream: pickle.loads(pickle.dumps(stream))])
def test_a_classifiers_stream_goes_on_in_a_copy_and_in_another_process(again: Callable):
    model, steps = images(), torch.randn(2, 9, 1)
    stream = model.stream()
    stream.read(steps[:, :4])
    other = again(stream)
    stream.read(steps.flip(0)[:, 4:])
    other.read(steps[:, 4:])
    assert torch.equal(other.logits, model(steps).logits)


def test_a_stream_reads_as_in_evaluation_and_leaves_the_model_alone():
    model = images(head_dropout=0.9).train()
    steps = torch.randn(1, 9, 1)
    stream = model.stream()
    stream.read(steps)
    assert model.training
    assert not stream.logits.requires_grad
    torch.testing.assert_close(stream.logits, model.eval()(steps).logits)


def test_what_a_stream_cannot_read_is_refused():
    with pytest.raises(UsageError, match=r"the model is bidirectional: .* take a model in one direction\."):
        images(bidirectional=True).stream()
    stream = images().stream()
    with pytest.raises(UsageError, match=r"nothing was read yet, so there are no scores; call read\(steps\) first\."):
        _ = stream.logits
    with pytest.raises(ShapeError, match=r"the inputs have the shape \(1, 4, 2\), expected \(batch, time, 1\)"):
        stream.read(torch.zeros(1, 4, 2))
    stream.read(torch.zeros(1, 4, 1))
    with pytest.raises(ShapeError, match=r"steps has 2 rows, expected 1 as in the steps before; call reset\(\)"):
        stream.read(torch.zeros(2, 4, 1))
    with pytest.raises(UsageError, match="input_ids holds 50, expected ids from 0 to 49"):
        texts().stream().read(torch.full((1, 1), 50))


def test_the_example_of_its_docstring_runs():
    (example,) = (part for part in (ClassifierStream.__doc__ or "").split("\n\n") if "stream.read(row)" in part)
    namespace = {"urzoo": urzoo, "torch": torch}
    exec("\n".join(line[8:] for line in example.splitlines()), namespace)
    assert namespace["stream"].logits.shape == (1, 10)
