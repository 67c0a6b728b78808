import math

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM

from urzoo import URLSTMConfig, URLSTMForCausalLM
from urzoo.errors import UsageError

VOCABULARY, SIZE, WEIGHT, SHARPNESS = 20, 5, 0.3, 4.0


@pytest.fixture
def model() -> URLSTMForCausalLM:
    config = URLSTMConfig(
        vocab_size=VOCABULARY,
        hidden_size=12,
        embedding_size=8,
        head_dropout=0.0,
        initializer_range=1.0,
        neural_cache_size=SIZE,
        neural_cache_weight=WEIGHT,
        neural_cache_sharpness=SHARPNESS,
    )
    return URLSTMForCausalLM(config).eval()


@pytest.fixture
def ids() -> torch.Tensor:
    return torch.randint(VOCABULARY, (2, 14))


def without(model: URLSTMForCausalLM, ids: torch.Tensor) -> torch.Tensor:
    return model(ids).logits.log_softmax(-1)


def by_definition(model: URLSTMForCausalLM, ids: torch.Tensor) -> torch.Tensor:
    """The mixture as Grave et al. write it: a loop over queries and over the steps they look back on."""
    own = without(model, ids).exp()
    states = nn.functional.normalize(model.projection(model.model(ids).last_hidden_state), dim=-1)
    for row in range(ids.shape[0]):
        for query in range(1, ids.shape[1]):
            steps = range(max(0, query - SIZE), query)
            likenesses = [math.exp(SHARPNESS * float(states[row, query] @ states[row, step])) for step in steps]
            own[row, query] *= 1 - WEIGHT
            for step, likeness in zip(steps, likenesses, strict=True):
                own[row, query, ids[row, step + 1]] += WEIGHT * likeness / sum(likenesses)
    return own.log()


@torch.no_grad()
def test_the_scores_are_those_of_the_definition(model, ids):
    scores = model(ids, neural_cache=True).logits
    torch.testing.assert_close(scores, by_definition(model, ids), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(scores.exp().sum(-1), torch.ones(ids.shape))
    assert not torch.allclose(scores, without(model, ids), atol=0.1)


@torch.no_grad()
def test_autocast_leaves_the_likenesses_in_float32(model, ids):
    with torch.autocast("cpu", torch.bfloat16):
        scores = model(ids, neural_cache=True).logits
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores, model(ids, neural_cache=True).logits, atol=0.1, rtol=0.1)


@torch.no_grad()
def test_a_model_in_16_bits_looks_back_too(model, ids):
    whole = model(ids, neural_cache=True).logits
    torch.testing.assert_close(model.bfloat16()(ids, neural_cache=True).logits, whole, atol=0.2, rtol=0.1)


@torch.no_grad()
@pytest.mark.parametrize("kept", [1, 3, torch.tensor([2, 9])])
def test_scores_of_some_steps_are_those_among_all(model, ids, kept):
    wanted = slice(-kept, None) if isinstance(kept, int) else kept
    torch.testing.assert_close(
        model(ids, logits_to_keep=kept, neural_cache=True).logits, model(ids, neural_cache=True).logits[:, wanted]
    )


@torch.no_grad()
def test_many_queries_are_scored_in_parts(model, ids, monkeypatch):
    whole = model(ids, neural_cache=True).logits
    monkeypatch.setattr("urzoo.models.neural_cache_urlstm._HELD_LIKENESSES", 36)
    torch.testing.assert_close(model(ids, neural_cache=True).logits, whole)


@torch.no_grad()
def test_padding_between_and_around_pieces_is_not_looked_back_on(model, ids):
    mask = torch.ones(2, 20, dtype=torch.int64)
    mask[0, [0, 1, 7, 12, 18, 19]] = 0
    mask[1, [4, 5, 6, 7, 11, 15]] = 0
    padded = torch.zeros(2, 20, dtype=torch.int64)
    padded[mask == 1] = ids.flatten()
    whole, cache, pieces = model(ids, neural_cache=True).logits, None, []
    for piece, piece_mask in zip(padded.split([6, 1, 8, 5], 1), mask.split([6, 1, 8, 5], 1), strict=True):
        output = model(piece, attention_mask=piece_mask, cache=cache, use_cache=True, neural_cache=True)
        cache = output.cache
        pieces.append(output.logits)
    scores = torch.cat(pieces, dim=1)[mask == 1].view_as(whole)
    torch.testing.assert_close(scores, whole, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_cache_holds_no_more_than_the_steps_looked_back_on(model, ids):
    cache = model(ids, use_cache=True, neural_cache=True).cache
    assert cache.history.tokens.tolist() == ids[:, -SIZE:].tolist()
    for step in range(30):
        cache = model(ids[:, step % 14, None], cache=cache, use_cache=True, neural_cache=True).cache
        assert cache.history.keys.shape == (2, SIZE, 8)
        assert cache.history.keys.untyped_storage().nbytes() <= 2 * (SIZE + 1) * 8 * 4


@torch.no_grad()
def test_a_row_that_is_reset_reads_as_a_fresh_one(model, ids):
    cache = model(ids[:, :6], use_cache=True, neural_cache=True).cache
    cache.reset_rows(torch.tensor([True, False]))
    scores = model(ids[:, 6:], cache=cache, neural_cache=True).logits
    torch.testing.assert_close(scores[0], model(ids[:1, 6:], neural_cache=True).logits[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(scores[1], model(ids, neural_cache=True).logits[1, 6:], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_the_loss_is_that_of_the_mixture(model, ids):
    scores = model(ids, neural_cache=True).logits
    expected = -scores[:, :-1].gather(2, ids[:, 1:, None]).mean()
    torch.testing.assert_close(model(ids, labels=ids, neural_cache=True).loss, expected)
    output = model(ids, labels=ids, compute_logits=False, neural_cache=True)
    torch.testing.assert_close(output.loss, expected)
    assert output.logits is None


@torch.no_grad()
def test_loading_and_generating_leave_it_off(model, ids, tmp_path):
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    plain = AutoModelForCausalLM.from_pretrained(tmp_path, neural_cache_size=0).eval()
    assert loaded.config.neural_cache_size == SIZE
    assert torch.equal(loaded(ids).logits, plain(ids).logits)
    written = loaded.generate(ids, max_new_tokens=20, do_sample=False, return_dict_in_generate=True)
    assert written.cache is None or written.cache.history is None
    assert torch.equal(written.sequences, plain.generate(ids, max_new_tokens=20, do_sample=False))


@pytest.mark.parametrize("options", [{"num_beams": 1}, {"num_beams": 3}, {"num_beams": 4, "num_return_sequences": 3}])
def test_generation_that_asks_for_it_is_that_without_the_state(model, ids, options):
    mask = torch.ones_like(ids)
    mask[0, :5] = 0
    options = {"attention_mask": mask, "max_new_tokens": 9, "do_sample": False, "neural_cache": True, **options}
    assert torch.equal(model.generate(ids, **options), model.generate(ids, use_cache=False, **options))


def test_training_with_it_is_refused(model, ids):
    with pytest.raises(UsageError, match=r"neural_cache is true in training, .* call model\.eval\(\) first"):
        model.train()(ids, neural_cache=True)


def test_a_model_without_settings_refuses_it(ids):
    model = URLSTMForCausalLM(URLSTMConfig(vocab_size=VOCABULARY, hidden_size=12)).eval()
    with pytest.raises(UsageError, match=r"neural_cache is true, but config\.neural_cache_size is 0"):
        model(ids, neural_cache=True)


def test_gradients_in_evaluation_are_finite(model, ids):
    model(ids, labels=ids, neural_cache=True).loss.backward()
    assert all(torch.isfinite(value.grad).all() for value in model.parameters())


@torch.no_grad()
def test_a_saved_model_looks_back_as_before(model, ids, tmp_path):
    model.save_pretrained(tmp_path)
    torch.testing.assert_close(
        AutoModelForCausalLM.from_pretrained(tmp_path).eval()(ids, neural_cache=True).logits,
        model(ids, neural_cache=True).logits,
    )


@torch.no_grad()
def test_a_history_of_another_model_is_refused(model, ids):
    cache = model(ids, use_cache=True, neural_cache=True).cache
    hidden = cache.states[0][0].clone()
    other = URLSTMForCausalLM(URLSTMConfig(**{**model.config.to_diff_dict(), "embedding_size": 6})).eval()
    with pytest.raises(UsageError, match="history of vectors of 8 numbers, expected 6: it is of another model"):
        other(ids, cache=cache, neural_cache=True)
    assert torch.equal(cache.states[0][0], hidden)


@torch.no_grad()
def test_steps_read_without_it_end_the_history(model, ids):
    cache = model(ids[:, :6], use_cache=True, neural_cache=True).cache
    model(ids[:, 6:8], cache=cache)
    assert cache.history is None
    assert model(ids[:, 8:], cache=cache, neural_cache=True).cache.history.tokens.tolist() == ids[:, -SIZE:].tolist()


def test_embedded_tokens_are_refused(model, ids):
    with pytest.raises(UsageError, match=r"inputs_embeds was given with neural_cache, .* give input_ids"):
        model(inputs_embeds=model.get_input_embeddings()(ids), neural_cache=True)


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("neural_cache_size", -1, "0 for none"),
        ("neural_cache_weight", 0.0, "a share between 0 and 1"),
        ("neural_cache_weight", 1, "a share between 0 and 1"),
        ("neural_cache_sharpness", 0, "a number above 0"),
        ("neural_cache_sharpness", math.inf, "a number above 0"),
    ],
)
def test_impossible_settings_are_one_line(field, value, expected):
    with pytest.raises(UsageError, match=f"{field} is {value}, expected {expected}"):
        URLSTMConfig(**{field: value})
