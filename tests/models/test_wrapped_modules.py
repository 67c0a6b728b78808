"""Whatever wraps, hooks, parametrises, offloads or replaces a part of a model takes part in what it computes."""

import copy

import accelerate
import peft
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize, prune

from urzoo import URLSTMConfig, URLSTMForCausalLM, URLSTMForSequenceClassification
from urzoo.models import output_urlstm

# peft asks transformers for a name that it deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

VARIANTS = {
    "plain": {},
    "bfloat16 head": {"head_dtype": "bfloat16"},
    "adaptive": {"adaptive_cutoffs": [10, 30], "head_dtype": "bfloat16"},
    "gru": {"cell": "gru", "num_layers": 2, "residual": True, "layer_norm": True, "tie_word_embeddings": False},
}


@pytest.fixture(params=VARIANTS)
def model(request) -> URLSTMForCausalLM:
    sizes = {"vocab_size": 50, "hidden_size": 16, "embedding_size": 12, "initializer_range": 1.0, "head_dropout": 0.0}
    return URLSTMForCausalLM(URLSTMConfig(**{**sizes, **VARIANTS[request.param]})).eval()


@pytest.fixture
def ids() -> torch.Tensor:
    return torch.randint(50, (2, 7))


def one_by_one(model, ids) -> torch.Tensor:
    """Scores of one-token calls, as generation makes them."""
    cache, scores = None, []
    for step in ids.split(1, dim=1):
        output = model(step, cache=cache, use_cache=True)
        cache = output.cache
        scores.append(output.logits)
    return torch.cat(scores, dim=1)


def test_hooks_fire_in_every_kind_of_call(model, ids):
    parts = {name: module for name, module in model.named_modules() if name and not isinstance(module, nn.ModuleList)}
    calls = dict.fromkeys(parts, 0)

    def count(name):
        def hook(*_):
            calls[name] += 1

        return hook

    for name, module in parts.items():
        module.register_forward_hook(count(name))
    for wanted, call in enumerate(
        (
            lambda: model(ids),
            lambda: model(ids[:, :1]),
            lambda: model(ids, labels=ids, compute_logits=False),
            lambda: model.train()(ids, labels=ids, compute_logits=False),
        ),
        start=1,
    ):
        call()
        assert calls == dict.fromkeys(parts, wanted)


@pytest.mark.parametrize("part", ["lm_head", "model.embed_tokens", "model.layers.0.recurrence"])
@torch.no_grad()
def test_what_a_hook_returns_is_used(model, ids, part):
    before = model(ids).logits, one_by_one(model, ids), model(ids, labels=ids, compute_logits=False).loss

    def halve(_, __, output):
        return (output[0] / 2, output[1]) if isinstance(output, tuple) else output / 2

    handle = model.get_submodule(part).register_forward_hook(halve)
    after = model(ids).logits, one_by_one(model, ids), model(ids, labels=ids, compute_logits=False).loss
    assert not any(torch.allclose(one, other, atol=1e-3) for one, other in zip(before, after, strict=True))
    torch.testing.assert_close(after[0], after[1], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(after[2], model(ids, labels=ids).loss)
    handle.remove()
    assert torch.equal(model(ids, labels=ids, compute_logits=False).loss, before[2])


def test_the_loss_without_scores_is_that_of_the_scores_however_the_head_is_wrapped(model, ids):
    read = model(ids, labels=ids, compute_logits=False)
    read.loss.backward()
    gradients = {name: value.grad.clone() for name, value in model.named_parameters()}
    model.zero_grad()
    model.lm_head.register_forward_hook(lambda *_: None)
    called = model(ids, labels=ids, compute_logits=False)
    called.loss.backward()
    tolerance = {"atol": 1e-5, "rtol": 1e-4} if model.config.head_dtype == "float32" else {"atol": 0.02, "rtol": 0.05}
    torch.testing.assert_close(called.loss, read.loss, **tolerance)
    for name, value in model.named_parameters():
        torch.testing.assert_close(value.grad, gradients[name], **tolerance, msg=name)


def test_a_head_that_nothing_wraps_is_read_in_chunks(model, ids, monkeypatch):
    monkeypatch.setattr(output_urlstm, "vocabulary_scores", None)
    monkeypatch.setattr("urzoo.models.causal_lm_urlstm.vocabulary_scores", None)
    assert torch.isfinite(model(ids, labels=ids, compute_logits=False).loss)


@pytest.mark.filterwarnings("ignore:Model with `tie_word_embeddings=True`:UserWarning")
@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`:UserWarning")
@pytest.mark.parametrize("compute_logits", [True, False])
def test_lora_on_head_and_embedding_learns(model, ids, compute_logits):
    settings = peft.LoraConfig(target_modules=["lm_head", "embed_tokens"], r=2, init_lora_weights=False)
    before = model(ids).logits
    adapted = peft.get_peft_model(model, settings)
    assert not torch.allclose(adapted(input_ids=ids).logits, before, atol=1e-3)
    adapted(input_ids=ids, labels=ids, compute_logits=compute_logits).loss.backward()
    learning = {name: value.grad for name, value in adapted.named_parameters() if value.requires_grad}
    assert any("lm_head" in name for name in learning)
    assert any("embed_tokens" in name for name in learning)
    assert all(gradient is not None and gradient.abs().max() > 0 for gradient in learning.values())
    torch.testing.assert_close(one_by_one(adapted.eval(), ids), adapted(input_ids=ids).logits, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_offloaded_models_score_as_before(model, ids, tmp_path):
    expected, stepwise = model(ids).logits, one_by_one(model, ids)
    loss = model(ids, labels=ids, compute_logits=False).loss
    written = model.generate(ids, max_new_tokens=5, do_sample=False)
    offloaded = accelerate.cpu_offload(copy.deepcopy(model), execution_device="cpu")
    on_disk = accelerate.disk_offload(copy.deepcopy(model), str(tmp_path), execution_device="cpu")
    for one in (offloaded, on_disk):
        assert next(one.parameters()).is_meta
        torch.testing.assert_close(one(ids).logits, expected)
        torch.testing.assert_close(one_by_one(one, ids), stepwise)
        torch.testing.assert_close(one(ids, labels=ids, compute_logits=False).loss, loss, atol=2e-3, rtol=2e-3)
        assert torch.equal(one.generate(ids, max_new_tokens=5, do_sample=False), written)


@torch.no_grad()
def test_the_layers_alone_can_be_offloaded(ids):
    model = URLSTMForCausalLM(URLSTMConfig(vocab_size=50, hidden_size=16)).eval()
    expected = model(ids[:, :1]).logits
    accelerate.cpu_offload(model.model, execution_device="cpu")
    torch.testing.assert_close(model(ids[:, :1]).logits, expected)


@pytest.mark.parametrize("length", [7, 1])
@torch.no_grad()
def test_a_pruning_mask_that_is_loaded_is_seen(model, ids, length):
    for part, name in ((model.model.layers[0].recurrence, "weight_hh_l0"), (model.lm_head, "weight")):
        prune.identity(part, name)
    before = one_by_one(model, ids[:, :length]), model(ids[:, :length]).logits
    masked = {
        name: torch.zeros_like(value) if name.endswith("_mask") else value for name, value in model.state_dict().items()
    }
    model.load_state_dict(masked)
    for recurrence, weight in ((model.model.layers[0].recurrence.weight_hh_l0_orig, model.lm_head.weight_orig),):
        assert recurrence.abs().max() > 0
        assert weight.abs().max() > 0
    for scores, earlier in zip(
        (one_by_one(model, ids[:, :length]), model(ids[:, :length]).logits), before, strict=True
    ):
        assert not torch.allclose(scores, earlier, atol=1e-3)
        if model.clusters is None:
            # Only the bias of the head is left.
            torch.testing.assert_close(scores, model.lm_head.bias.float().expand_as(scores))


class Doubled(nn.Module):
    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return 2 * weight


@pytest.mark.parametrize(
    ("part", "name"),
    [("lm_head", "weight"), ("model.embed_tokens", "weight"), ("model.layers.0.recurrence", "weight_hh_l0")],
)
@torch.no_grad()
def test_a_parametrisation_is_seen(model, ids, part, name):
    model.config.tie_word_embeddings = False
    model.lm_head.weight = nn.Parameter(model.lm_head.weight.detach().clone())
    doubled = copy.deepcopy(model)
    weight = getattr(doubled.get_submodule(part), name)
    weight.data.mul_(2)
    parametrize.register_parametrization(model.get_submodule(part), name, Doubled())
    torch.testing.assert_close(model(ids).logits, doubled(ids).logits)
    torch.testing.assert_close(one_by_one(model, ids), one_by_one(doubled, ids))
    loss, expected = (one(ids, labels=ids, compute_logits=False).loss for one in (model, doubled))
    torch.testing.assert_close(loss, expected, atol=2e-2, rtol=2e-3)


@pytest.mark.parametrize("wrapped", [False, True])
def test_weight_dropout_acts_on_a_parametrised_weight_too(ids, wrapped):
    model = URLSTMForCausalLM(URLSTMConfig(vocab_size=50, hidden_size=16, weight_dropout=0.5, initializer_range=1.0))
    if wrapped:
        parametrize.register_parametrization(model.model.layers[0].recurrence, "weight_hh_l0", Doubled())
    with torch.no_grad():
        assert not torch.allclose(model.model(ids).last_hidden_state, model.model(ids).last_hidden_state, atol=1e-3)


@pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
@torch.no_grad()
def test_linear_maps_can_be_quantised_dynamically(model, ids):
    quantised = torch.ao.quantization.quantize_dynamic(model, {nn.Linear})
    assert type(quantised.lm_head) is not nn.Linear
    expected = model(ids).logits
    close = {"atol": 0.3 * float(expected.std()), "rtol": 0.0}
    torch.testing.assert_close(quantised(ids).logits, expected, **close)
    torch.testing.assert_close(one_by_one(quantised, ids), expected, **close)
    assert torch.isfinite(quantised(ids, labels=ids, compute_logits=False).loss)
    assert quantised.generate(ids, max_new_tokens=4, do_sample=False).shape == (2, 11)


@torch.no_grad()
def test_a_module_put_in_anothers_place_is_used(model, ids):
    class Zeros(nn.Module):
        def forward(self, hidden):
            return hidden.new_zeros((*hidden.shape[:-1], 50))

    if model.clusters is None:
        model.lm_head = Zeros()
        assert model(ids).logits.abs().max() == 0
        assert model(ids, labels=ids, compute_logits=False).loss == pytest.approx(torch.tensor(50.0).log().item())


def test_lora_on_a_classifiers_head_learns(ids):
    model = URLSTMForSequenceClassification(URLSTMConfig(vocab_size=50, hidden_size=16))
    settings = peft.LoraConfig(target_modules=["dense", "out_proj", "embed_tokens"], r=2, init_lora_weights=False)
    adapted = peft.get_peft_model(model, settings)
    adapted(input_ids=ids, labels=torch.tensor([0, 1])).loss.backward()
    gradients = [value.grad for value in adapted.parameters() if value.requires_grad]
    assert all(gradient is not None and gradient.abs().max() > 0 for gradient in gradients)


@pytest.mark.filterwarnings("ignore:`past_key_values` is deprecated:FutureWarning")  # peft's name for the state
def test_virtual_tokens_of_peft_stand_before_the_prompt_alone():
    """With the state they were put before each new token."""
    config = URLSTMConfig(vocab_size=40, hidden_size=16, initializer_range=1.0, pad_token_id=0)
    settings = peft.PromptTuningConfig(
        task_type="CAUSAL_LM", num_virtual_tokens=4, token_dim=16, num_layers=1, num_attention_heads=1
    )
    model = peft.get_peft_model(URLSTMForCausalLM(config), settings).eval()
    for parameter in model.prompt_encoder.parameters():
        torch.nn.init.normal_(parameter)
    ids = torch.arange(3, 13).view(2, 5)
    given = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "max_new_tokens": 6, "do_sample": False}
    written = model.generate(**given)
    assert torch.equal(written, model.generate(**given, use_cache=False))
    scores = model(input_ids=written, attention_mask=torch.ones_like(written)).logits[:, -7:-1]
    assert torch.equal(scores.argmax(-1), written[:, 5:])
