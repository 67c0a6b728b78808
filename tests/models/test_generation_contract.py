"""Generation as transformers promises it, way by way: what its own generation tests ask of a model.

Those tests (GenerationTesterMixin) are in none of its packages, so `scripts/conformance` runs them only from a checkout
of its repository; these are ours for the same promises. More of them stand in test_causal_lm.py and
test_text_generation.py: greedy, sampling and beams with the cache and without, left padding, going on from a state,
guidance, streaming, stop strings.
What transformers refuses to any model with a state of its own is tested to be refused, or to change nothing: assisted
generation and prompt look-up (a rejected token cannot be taken back), caches by name (static, quantised, offloaded: the
state has a fixed size), prefill in chunks without a state to begin with.
"""

import copy
import json

import pytest
import torch
from transformers import (
    GenerationConfig,
    LogitsProcessorList,
    MaxLengthCriteria,
    StoppingCriteriaList,
    TemperatureLogitsWarper,
)
from transformers.generation import GenerateBeamDecoderOnlyOutput, GenerateDecoderOnlyOutput

from urzoo import URLSTMCache, URLSTMConfig, URLSTMForCausalLM
from urzoo.errors import UsageError

VOCABULARY, LAYERS, NEW = 40, 2, 6
PROMPT = 5
VARIANTS = {
    "lstm": {},
    "gru": {"cell": "gru", "residual": True, "layer_norm": True},
    "adaptive": {"adaptive_cutoffs": [10, 20], "head_dtype": "bfloat16"},
}
WAYS = {
    "greedy": {},
    "sampling": {"do_sample": True, "top_k": 10, "top_p": 0.9},
    "beams": {"num_beams": 3},
    "sampled beams": {"num_beams": 3, "do_sample": True, "num_return_sequences": 2},
}


@pytest.fixture(params=VARIANTS)
def model(request) -> URLSTMForCausalLM:
    config = URLSTMConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        num_layers=LAYERS,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        initializer_range=1.0,
        **VARIANTS[request.param],
    )
    model = URLSTMForCausalLM(config).eval()
    # A text that ends early would say less.
    with torch.no_grad():
        model.lm_head.bias[2] = -20.0
    return model


@pytest.fixture
def ids() -> torch.Tensor:
    return torch.randint(3, VOCABULARY, (2, PROMPT))


def write(model, ids, **options):
    torch.manual_seed(7)
    given = {} if ids is None else {"attention_mask": torch.ones_like(ids)}
    return model.generate(ids, **{"max_new_tokens": NEW, "do_sample": False, **given, **options})


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("use_cache", [True, False])
def test_a_full_output_tells_of_every_step(model, ids, way, use_cache):
    options = WAYS[way]
    parts = {"output_scores": True, "output_logits": True, "output_hidden_states": True}
    output = write(model, ids, return_dict_in_generate=True, use_cache=use_cache, **parts, **options)
    beams, returned = options.get("num_beams", 1), options.get("num_return_sequences", 1)
    kind = GenerateBeamDecoderOnlyOutput if beams > 1 else GenerateDecoderOnlyOutput
    assert type(output) is kind
    assert torch.equal(output.sequences, write(model, ids, use_cache=use_cache, **options))
    assert output.sequences.shape == (2 * returned, PROMPT + NEW)
    assert len(output.scores) == len(output.logits) == len(output.hidden_states) == NEW
    assert all(scores.shape == (2 * beams, VOCABULARY) for scores in (*output.scores, *output.logits))
    for step, layers in enumerate(output.hidden_states):
        length = 1 if use_cache and step else PROMPT + (0 if use_cache else step)
        assert [tuple(states.shape[:2]) for states in layers] == [(2 * beams, length)] * (LAYERS + 1)
    if beams > 1:
        assert output.sequences_scores.shape == (2 * returned,)
        assert output.beam_indices.shape[0] == 2 * returned
    assert (output.cache is not None) == use_cache


@pytest.mark.parametrize("way", WAYS)
def test_the_tokens_are_those_that_the_scores_say(model, ids, way):
    """Beams too: each returned row's score is the mean of its steps' log-probabilities along its beam."""
    output = write(model, ids, return_dict_in_generate=True, output_scores=True, **WAYS[way])
    steps = model.compute_transition_scores(
        output.sequences, output.scores, getattr(output, "beam_indices", None), normalize_logits=way == "greedy"
    )
    if way == "greedy":
        with torch.no_grad():
            own = model(output.sequences).logits.log_softmax(-1)[:, PROMPT - 1 : -1]
        chosen = own.gather(2, output.sequences[:, PROMPT:, None])[..., 0]
        torch.testing.assert_close(steps, chosen, atol=0.05 if model.clusters else 1e-4, rtol=0.05)
        assert torch.equal(own.argmax(-1), output.sequences[:, PROMPT:])
    elif "beams" in way:
        torch.testing.assert_close(steps.sum(1) / NEW, output.sequences_scores)
    else:
        assert torch.isfinite(steps).all()


@pytest.mark.parametrize("way", ["greedy", "beams"])
def test_a_text_goes_on_from_what_a_generation_returned(model, ids, way):
    whole = write(model, ids, **WAYS["greedy"])
    begun = write(model, ids, return_dict_in_generate=True, max_new_tokens=3)
    assert isinstance(begun.cache, URLSTMCache) or begun.cache is None
    cache = begun.cache
    assert cache.get_seq_length() == PROMPT + 2
    if way == "greedy":
        rest = write(model, begun.sequences[:, -1:], cache=cache, max_new_tokens=NEW - 3)
        assert torch.equal(rest[:, 1:], whole[:, PROMPT + 3 :])
    else:
        # From the state as from the text that made it.
        rest = write(model, begun.sequences[:, -1:], cache=cache, num_beams=3, max_new_tokens=3)
        expected = write(model, begun.sequences, num_beams=3, max_new_tokens=3)
        assert torch.equal(rest[:, 1:], expected[:, PROMPT + 3 :])


@pytest.mark.parametrize("way", WAYS)
def test_embeddings_in_place_of_ids_give_the_same_text(model, ids, way):
    embedded = model.get_input_embeddings()(ids).detach()
    expected = write(model, ids, **WAYS[way])[:, PROMPT:]
    assert torch.equal(write(model, None, inputs_embeds=embedded, **WAYS[way]), expected)
    # With the ids beside them those come back too; the embeddings count.
    both = write(model, ids.flip(1), inputs_embeds=embedded, **WAYS[way])
    assert torch.equal(both[:, PROMPT:], expected)


def test_random_embeddings_decide_the_text(model):
    one, other = (torch.randn(1, PROMPT, model.config.token_size) for _ in range(2))
    assert not torch.equal(write(model, None, inputs_embeds=one), write(model, None, inputs_embeds=other))


def test_without_inputs_a_text_begins_with_its_first_token(model):
    alone = write(model, None)
    assert alone.shape == (1, 1 + NEW)
    assert torch.equal(alone, write(model, torch.tensor([[1]])))


@pytest.mark.parametrize(
    ("options", "length"),
    [
        ({"max_new_tokens": 4}, PROMPT + 4),
        ({"max_length": PROMPT + 3, "max_new_tokens": None}, PROMPT + 3),
        ({"stopping_criteria": StoppingCriteriaList([MaxLengthCriteria(max_length=PROMPT + 2)])}, PROMPT + 2),
        ({"generation_config": GenerationConfig(max_new_tokens=2, pad_token_id=0), "max_new_tokens": 2}, PROMPT + 2),
    ],
)
def test_lengths_are_kept(model, ids, options, length):
    written = write(model, ids, **options)
    assert written.shape == (2, length)
    assert torch.equal(written, write(model, ids)[:, :length])


@pytest.mark.parametrize("file", ["as saved", "none", "of before"])
def test_the_longest_dependency_in_steps_is_no_limit_in_seconds(file, tmp_path):
    """Both are called max_time, and transformers copies what has the name of one of its settings."""
    config = URLSTMConfig(vocab_size=VOCABULARY, hidden_size=16, gate="CR", max_time=2)
    model = URLSTMForCausalLM(config)
    assert model.generation_config.max_time is None
    model.generation_config.repetition_penalty = 1.5
    model.save_pretrained(tmp_path)
    settings = tmp_path / "generation_config.json"
    if file == "none":
        settings.unlink()
    elif file == "of before":
        settings.write_text(json.dumps(json.loads(settings.read_text()) | {"max_time": 2}))
    again = URLSTMForCausalLM.from_pretrained(tmp_path)
    assert (again.config.max_time, again.generation_config.max_time) == (2, None)
    assert again.generation_config.repetition_penalty == (None if file == "none" else 1.5)
    again.generation_config.max_time = 2.0
    assert copy.deepcopy(again).generation_config.max_time == 2.0


def test_an_end_fills_up_with_padding_and_min_new_tokens_puts_it_off(model, ids):
    whole = write(model, ids)
    end = int(whole[0, PROMPT + 1])
    written = write(model, ids[:1], eos_token_id=[2, end])
    first = PROMPT + whole[0, PROMPT:].tolist().index(end)
    assert written.tolist() == whole[:1, : first + 1].tolist()
    together = write(model, ids, eos_token_id=[2, end])
    assert (together[0, first + 1 :] == 0).all()
    later = write(model, ids[:1], eos_token_id=end, min_new_tokens=4)
    assert end not in later[0, PROMPT : PROMPT + 4].tolist()


def test_processors_of_scores_take_part(model, ids):
    whole = write(model, ids)
    banned = [[int(token)] for token in whole[:, PROMPT].unique()]
    assert not torch.isin(write(model, ids, bad_words_ids=banned)[:, PROMPT:], torch.tensor(banned)).any()
    allowed = write(model, ids, prefix_allowed_tokens_fn=lambda *_: [5, 6, 7])[:, PROMPT:]
    assert torch.isin(allowed, torch.tensor([5, 6, 7])).all()
    seen = write(model, ids, no_repeat_ngram_size=1, max_new_tokens=12)
    assert all(len(set(row)) == len(row) for row in seen[:, PROMPT:].tolist())
    warmed = LogitsProcessorList([TemperatureLogitsWarper(1e-5)])
    sampled = write(model, ids, do_sample=True, logits_processor=warmed, top_k=0)
    assert torch.equal(sampled, whole)


def test_only_the_last_step_of_a_prompt_is_scored(model, ids):
    shapes = []
    handle = model.lm_head.register_forward_hook(lambda _, __, output: shapes.append(tuple(output.shape)))
    write(model, ids)
    handle.remove()
    assert shapes == [(2, 1, VOCABULARY)] * NEW


def test_several_texts_of_one_prompt_are_as_from_repeated_prompts(model, ids):
    options = {"do_sample": True, "top_k": 0}
    several = write(model, ids, num_return_sequences=3, **options)
    assert torch.equal(several, write(model, ids.repeat_interleave(3, 0), **options))


@pytest.mark.parametrize("options", [{"num_beams": 1}, {"num_beams": 3}])
def test_generation_in_bfloat16_goes_through(model, ids, options):
    half = model.bfloat16()
    assert write(half, ids, **options).shape == (2, PROMPT + NEW)
    with torch.autocast("cpu", torch.bfloat16):
        assert write(model.float(), ids, **options).shape == (2, PROMPT + NEW)


@pytest.mark.parametrize("way", ["assistant_model", "prompt_lookup_num_tokens"])
def test_assisted_generation_is_refused(model, ids, way):
    value = model if way == "assistant_model" else 2
    with pytest.raises(ValueError, match="assisted generation is not supported with stateful models"):
        write(model, ids, **{way: value})


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    "options", [{"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 1.0}, {"penalty_alpha": 0.6, "top_k": 4}]
)
def test_ways_that_left_transformers_are_refused_before_any_code_is_fetched(model, ids, options):
    with pytest.raises(ValueError, match="requires `trust_remote_code=True`"):
        write(model, ids, **options)


def test_prefill_in_chunks_needs_a_state_to_begin_with(model, ids):
    with pytest.raises(ValueError, match="Cannot use prefill chunking without a cache"):
        write(model, ids, prefill_chunk_size=2)
    cache, rest = model(ids[:, :2]).cache, ids[:, 2:]
    in_chunks = write(model, rest, cache=cache.clone(), prefill_chunk_size=2)
    assert torch.equal(in_chunks, write(model, rest, cache=cache))


@pytest.mark.parametrize("implementation", ["static", "quantized", "offloaded"])
def test_a_cache_by_name_changes_nothing(model, ids, implementation):
    assert torch.equal(write(model, ids, cache_implementation=implementation), write(model, ids))


def test_attentions_are_refused_in_one_line(model, ids):
    with pytest.raises(UsageError, match="output_attentions is true, but recurrent layers have no attention"):
        write(model, ids, output_attentions=True, return_dict_in_generate=True)
