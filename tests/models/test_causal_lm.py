import threading

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn
from transformers import AutoModelForCausalLM, DynamicCache, PreTrainedTokenizerFast, TextIteratorStreamer, pipeline

from urzoo import URLSTMCache, URLSTMConfig, URLSTMForCausalLM, URLSTMModel
from urzoo.errors import ShapeError, UsageError

VOCABULARY = 40
VARIANTS = {
    "lstm": {},
    "gru": {"cell": "gru"},
    "deep": {"num_layers": 3, "residual": True, "layer_norm": True, "embedding_size": 12},
    "adaptive": {"adaptive_cutoffs": [10, 20]},
}


def build(**fields) -> URLSTMForCausalLM:
    config = URLSTMConfig(
        **{
            "vocab_size": VOCABULARY,
            "hidden_size": 16,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "initializer_range": 1.0,
            **fields,
        }
    )
    return URLSTMForCausalLM(config).eval()


@pytest.fixture(params=VARIANTS)
def model(request) -> URLSTMForCausalLM:
    return build(**VARIANTS[request.param])


@pytest.fixture
def ids() -> torch.Tensor:
    return torch.randint(3, VOCABULARY, (3, 9))


def generate(model, ids, **options):
    torch.manual_seed(5)
    options = {"max_new_tokens": 12, "attention_mask": torch.ones_like(ids), **options}
    return model.generate(ids, **options)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"do_sample": True, "top_k": 8},
        {"num_beams": 3},
        {"num_beams": 4, "num_return_sequences": 3},
        {"do_sample": True, "num_return_sequences": 3},
    ],
    ids=["greedy", "sampling", "beam", "beam, several", "sampling, several"],
)
def test_generation_with_the_cache_is_that_without(model, ids, options):
    assert torch.equal(generate(model, ids, **options), generate(model, ids, use_cache=False, **options))


def test_a_left_padded_batch_generates_what_each_row_does_alone(model, ids):
    lengths = [9, 4, 1]
    padded, mask = ids.clone(), torch.ones_like(ids)
    for row, length in enumerate(lengths):
        padded[row, : 9 - length] = 0
        mask[row, : 9 - length] = 0
    for options in ({}, {"num_beams": 3}):
        together = generate(model, padded, attention_mask=mask, **options)[:, 9:]
        for row, length in enumerate(lengths):
            alone = generate(model, ids[row : row + 1, 9 - length :], **options)[0, length:]
            assert torch.equal(together[row, : len(alone)], alone)
            # What follows the end is padding, or the end again, which beam search takes for a padding id of 0.
            assert torch.isin(together[row, len(alone) :], torch.tensor([0, 2])).all()


@pytest.mark.parametrize("side", ["left", "right", "both"])
def test_padding_does_not_change_a_rows_scores(model, ids, side):
    before, after = {"left": (4, 0), "right": (0, 4), "both": (3, 2)}[side]
    padded = nn.functional.pad(ids, (before, after))
    mask = nn.functional.pad(torch.ones_like(ids), (before, after))
    # Other rows of other lengths stand in the same batch.
    padded = torch.cat([padded, torch.randint(3, VOCABULARY, (2, padded.shape[1]))])
    mask = torch.cat([mask, torch.ones(2, padded.shape[1], dtype=mask.dtype)])
    scores = model(padded, attention_mask=mask).logits[:3, before : before + 9]
    torch.testing.assert_close(scores, model(ids).logits, atol=1e-5, rtol=0)


def test_a_text_in_pieces_scores_as_the_whole(model, ids):
    whole = model(ids, use_cache=True)
    for sizes in ([4, 5], [1] * 9, [8, 1]):
        cache, pieces = None, []
        for piece in ids.split(sizes, dim=1):
            output = model(piece, cache=cache, use_cache=True)
            cache = output.cache
            pieces.append(output.logits)
        torch.testing.assert_close(torch.cat(pieces, dim=1), whole.logits, atol=1e-5, rtol=1e-5)
        assert cache.get_seq_length() == 9
        for one, other in zip(cache.states, whole.cache.states, strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}, {"do_sample": True, "num_return_sequences": 2}])
def test_generation_goes_on_from_a_given_cache(model, ids, options):
    expected = generate(model, ids, **options)[:, 9:]
    cache = model(ids[:, :6], use_cache=True).cache
    rest = ids[:, 6:]
    assert torch.equal(generate(model, rest, cache=cache.clone(), **options)[:, 3:], expected)
    # A mask may cover what the cache has read.
    mask = torch.ones_like(ids)
    assert torch.equal(generate(model, rest, cache=cache, attention_mask=mask, **options)[:, 3:], expected)


@pytest.mark.parametrize("name", ["past_key_values", "cache_params"])
def test_a_state_by_its_older_names_is_read_and_not_passed_over(model, ids, name):
    cache, rest = model(ids[:, :6], use_cache=True).cache, ids[:, 6:]
    for part in (model, model.model):
        with pytest.warns(FutureWarning, match=f"`{name}` is deprecated.*Use `cache` instead"):
            found = part(rest, **{name: cache.clone()})[0]
        assert torch.equal(found, part(rest, cache=cache.clone())[0])
    with pytest.warns(FutureWarning, match=f"`{name}` is deprecated.*Use `cache` instead"):
        text = generate(model, rest, **{name: cache.clone()})
    assert torch.equal(text, generate(model, rest, cache=cache))


@torch.no_grad()
@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("negative", [None, torch.tensor([[5, 6, 7], [8, 9, 10], [0, 0, 11]])])
def test_guidance_moves_away_from_what_follows_without_the_prompt(model, ids, negative, use_cache):
    options = {} if negative is None else {"negative_prompt_ids": negative}
    if negative is not None:
        options["negative_prompt_attention_mask"] = (negative != 0).long()
    written = generate(model, ids, guidance_scale=1.5, use_cache=use_cache, max_new_tokens=5, **options)
    expected, bare = ids, ids[:, -1:] if negative is None else negative
    mask = None if negative is None else (negative != 0).long()
    for _ in range(written.shape[1] - ids.shape[1]):
        scores = model(expected).logits[:, -1].log_softmax(-1)
        without = model(bare, attention_mask=mask).logits[:, -1].log_softmax(-1)
        following = (1.5 * (scores - without) + without).argmax(-1, keepdim=True)
        # Rows that have ended are filled up with padding, whatever they would go on with.
        following = torch.where((expected[:, ids.shape[1] :] == 2).any(1, keepdim=True), 0, following)
        expected, bare = torch.cat([expected, following], 1), torch.cat([bare, following], 1)
        mask = None if mask is None else torch.cat([mask, torch.ones_like(following)], 1)
    assert torch.equal(written, expected)


def test_guidance_of_several_beams_is_refused(model, ids):
    with pytest.raises(UsageError, match="guidance_scale was given with num_beams=3"):
        generate(model, ids, guidance_scale=1.5, num_beams=3)


def test_the_returned_cache_continues_the_generation(model, ids):
    expected = generate(model, ids, max_new_tokens=12, eos_token_id=None)
    first = generate(model, ids, max_new_tokens=5, eos_token_id=None, return_dict_in_generate=True)
    # It has read all tokens but the last one returned.
    more = generate(model, first.sequences[:, -1:], cache=first.cache, max_new_tokens=7, eos_token_id=None)
    assert torch.equal(torch.cat([first.sequences, more[:, 1:]], dim=1), expected)


def test_generation_from_embeddings_is_that_from_their_ids(ids):
    model = build()
    embedded = model.get_input_embeddings()(ids)
    assert torch.equal(generate(model, ids)[:, 9:], model.generate(inputs_embeds=embedded, max_new_tokens=12))


def test_the_state_does_not_grow():
    model = build()
    cache = None
    sizes = set()
    for _ in range(50):
        cache = model(torch.tensor([[5]]), cache=cache, use_cache=True).cache
        sizes.add(sum(part.numel() for state in cache.states for part in state))
    assert sizes == {32}
    assert cache.get_seq_length() == 50


def test_a_model_given_a_cache_writes_to_no_tensor_of_it(model, ids):
    cache = model(ids, use_cache=True).cache
    kept = cache.clone()
    before = [[part.clone() for part in state] for state in kept.states]
    model(ids, cache=cache)
    assert cache.seen_tokens == 18
    assert kept.seen_tokens == 9
    for state, old in zip(kept.states, before, strict=True):
        assert all(torch.equal(one, other) for one, other in zip(state, old, strict=True))
    cache.reset()
    torch.testing.assert_close(model(ids, cache=cache).logits, model(ids).logits)


def test_a_mask_with_a_cache_passes_over_the_padding_of_the_new_part(model, ids):
    cache = model(ids, use_cache=True).cache
    more = torch.randint(3, VOCABULARY, (3, 4))
    plain = model(more, cache=cache.clone()).logits
    mask = torch.cat([torch.ones(3, 4), torch.zeros(3, 2)], dim=1)
    padded = model(nn.functional.pad(more, (0, 2)), attention_mask=mask, cache=cache).logits
    torch.testing.assert_close(padded[:, :4], plain, atol=1e-5, rtol=0)


def test_a_row_of_padding_keeps_its_state(model, ids):
    cache = model(ids, use_cache=True).cache
    before = cache.clone()
    mask = torch.ones(3, 4)
    mask[1] = 0
    model(torch.full((3, 4), 7), attention_mask=mask, cache=cache)
    for one, other in zip(cache.states, before.states, strict=True):
        for part, old in zip(one, other, strict=True):
            assert torch.equal(part[1], old[1])
            assert not torch.equal(part[0], old[0])


def test_the_loss_without_scores_is_the_loss_with_them(model, ids):
    labels = ids.clone()
    labels[0, :5] = -100
    losses, gradients = [], []
    for compute_logits in (True, False):
        model.zero_grad()
        output = model(ids, labels=labels, compute_logits=compute_logits)
        assert (output.logits is not None) == compute_logits
        output.loss.backward()
        losses.append(output.loss.detach())
        gradients.append({name: parameter.grad.clone() for name, parameter in model.named_parameters()})
    torch.testing.assert_close(losses[0], losses[1], atol=1e-5, rtol=1e-5)
    for name in gradients[0]:
        torch.testing.assert_close(gradients[0][name], gradients[1][name], atol=1e-5, rtol=1e-4, msg=name)


def test_the_loss_is_the_mean_over_the_next_tokens(model, ids):
    scores = model(ids).logits
    expected = nn.functional.cross_entropy(scores[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    torch.testing.assert_close(model(ids, labels=ids).loss, expected)
    following = nn.functional.pad(ids[:, 1:], (0, 1), value=-100)
    torch.testing.assert_close(model(ids, shift_labels=following).loss, expected)
    for compute_logits in (True, False):
        accumulated = model(ids, labels=ids, num_items_in_batch=48, compute_logits=compute_logits).loss
        torch.testing.assert_close(accumulated, expected * 24 / 48, atol=1e-5, rtol=1e-5)


def test_the_adaptive_softmax_is_a_distribution(ids):
    scores = build(adaptive_cutoffs=[10, 20]).forward(ids).logits
    torch.testing.assert_close(scores.exp().sum(-1), torch.ones(3, 9))


def test_segments_with_a_carried_state_learn_as_the_state_says(ids):
    model = build().train()
    cache = model(ids, use_cache=True).cache.detach()
    assert all(not part.requires_grad for state in cache.states for part in state)
    loss = model(ids, labels=ids, cache=cache, use_cache=True).loss
    loss.backward()
    assert model.model.layers[0].recurrence.weight_hh_l0.grad.abs().sum() > 0


def test_the_output_product_in_bfloat16_is_a_named_option(ids):
    plain = build()
    half = build(head_dtype="bfloat16")
    half.load_state_dict(plain.state_dict())
    assert half(ids).logits.dtype == torch.float32
    torch.testing.assert_close(half(ids).logits, plain(ids).logits, atol=0.3, rtol=0.05)
    assert not torch.equal(half(ids).logits, plain(ids).logits)
    half(ids, labels=ids, compute_logits=False).loss.backward()
    assert half.lm_head.weight.grad.dtype == torch.float32


def test_dropouts_act_in_training_only(ids):
    model = build(weight_dropout=0.5, token_dropout=0.3, embedding_dropout=0.3, layer_dropout=0.3, num_layers=2)
    assert torch.equal(model(ids).logits, model(ids).logits)
    model.train()
    assert not torch.equal(model(ids).logits, model(ids).logits)


def test_gradient_reaches_every_parameter(model, ids):
    model.train()
    model(ids, labels=ids).loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_tied_weights_stay_tied_through_a_checkpoint(model, ids, tmp_path):
    model.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert again.lm_head.weight is again.model.embed_tokens.weight
    assert torch.equal(again(ids).logits, model(ids).logits)


def test_untied_weights_stay_apart(ids, tmp_path):
    model = build(tie_word_embeddings=False)
    model.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert again.lm_head.weight is not again.model.embed_tokens.weight
    assert torch.equal(again(ids).logits, model(ids).logits)


def test_a_larger_vocabulary_keeps_the_scores_of_the_old_tokens(ids):
    model = build()
    before = model(ids).logits
    model.resize_token_embeddings(VOCABULARY + 5)
    after = model(ids).logits
    assert after.shape[-1] == model.config.vocab_size == VOCABULARY + 5
    torch.testing.assert_close(after[..., :VOCABULARY], before)
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_a_compiled_model_gives_the_same_scores(ids):
    model = build()
    compiled = torch.compile(model, backend="eager")
    torch.testing.assert_close(compiled(ids).logits, model(ids).logits)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda m, x: m(x + VOCABULARY), UsageError, r"input_ids holds \d+, expected ids from 0 to 39"),
        (lambda m, x: m(x[:, :0]), ShapeError, r"input_ids has the shape \(3, 0\)"),
        (lambda m, x: m(x - VOCABULARY), UsageError, r"input_ids holds -\d+, expected ids from 0 to 39"),
        (lambda m, x: m(x.float()), UsageError, "input_ids holds torch.float32, expected torch.int64 .*inputs_embeds"),
        (lambda m, x: m(x.bool()), UsageError, r"input_ids holds torch.bool, expected torch.int64 or torch.int32\.$"),
        (lambda m, x: m.generate(x + VOCABULARY, max_new_tokens=2), UsageError, r"input_ids holds \d+, expected ids"),
        (
            lambda m, x: m.generate(x, cache=m(x[:1]).cache, max_new_tokens=2),
            ShapeError,
            "cache holds 1 rows.*have 3",
        ),
        (
            lambda m, x: m.generate(x, cache=build(hidden_size=8)(x).cache, max_new_tokens=2),
            UsageError,
            "it is of another model",
        ),
        (lambda m, x: m(x, labels=x + VOCABULARY), UsageError, r"labels holds \d+, expected ids from 0 to 39"),
        (lambda m, x: m(x, labels=x[:, 1:]), ShapeError, r"labels has the shape \(3, 8\), expected \(3, 9\)"),
        (lambda m, x: m(x, cache=m(x[:2]).cache), ShapeError, "cache holds 2 rows.*have 3"),
        (lambda m, x: m(x, cache=build(hidden_size=8)(x).cache), UsageError, "it is of another model"),
        (lambda m, x: m(x, cache=[1]), UsageError, "cache is a list, expected a URLSTMCache"),
        (lambda m, x: m(x, torch.ones(3, 11), cache=DynamicCache()), UsageError, "expected a URLSTMCache.*LoRA"),
        (lambda m, x: m(x, position_ids=torch.arange(9) % 5), UsageError, "position_ids begins again within a row"),
        (lambda m, x: m.generate_batch(x.tolist()), UsageError, "continuous batching shares out a key-value cache"),
        (lambda m, x: m(x, labels=x, logits_to_keep=1), UsageError, "labels and logits_to_keep were both given"),
        (lambda m, x: m(x, attention_mask=torch.ones(3, 5)), ShapeError, r"attention_mask has the shape \(3, 5\)"),
        (lambda m, x: m.generate(x, max_new_tokens=0), ValueError, "max_new_tokens.*greater than 0"),
        (lambda m, x: build(bidirectional=True), UsageError, "bidirectional is true, expected false"),
        (lambda m, x: build(vocab_size=None), UsageError, "vocab_size is null"),
    ],
)
def test_a_wrong_use_is_one_line(call, error, message, ids):
    with pytest.raises(error, match=message) as caught:
        call(build(), ids)
    assert "\n" not in str(caught.value)


def test_positions_that_go_on_are_taken(ids):
    model, mask = build(), torch.tensor([[1] * 9, [0] * 2 + [1] * 7, [1] * 6 + [0] * 3])
    for padding in (0, 1):  # as GPT-2 and others have them
        positions = (mask.cumsum(1) - 1).masked_fill(mask == 0, padding)
        found = model(ids, attention_mask=mask, position_ids=positions).logits
        assert torch.equal(found, model(ids, attention_mask=mask).logits)


def test_a_bidirectional_model_refuses_a_state(ids):
    model = URLSTMModel(URLSTMConfig(vocab_size=VOCABULARY, hidden_size=4, bidirectional=True))
    assert model(ids, use_cache=True).cache is None
    with pytest.raises(UsageError, match="cannot go on from a state"):
        model(ids, cache=URLSTMCache(1, 4, 2))


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    words = ["<pad>", "<s>", "</s>", *(f"w{index}" for index in range(3, VOCABULARY))]
    backend = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="w3"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", bos_token="<s>", eos_token="</s>")


def test_the_pipeline_generates_in_batches_what_it_generates_alone(tokenizer, tmp_path):
    model = build()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    texts = ["w5 w6 w7 w8", "w9", "w10 w11"]
    write = pipeline("text-generation", model=str(tmp_path))
    options = {"max_new_tokens": 6, "do_sample": False}
    assert write("", **options)[0]["generated_text"]
    alone = [write(text, **options)[0]["generated_text"] for text in texts]
    together = [answer[0]["generated_text"] for answer in write(texts, batch_size=3, **options)]
    assert together == alone
    ids = generate(model, torch.tensor([[5, 6, 7, 8]]), max_new_tokens=6)
    assert alone[0].removeprefix(texts[0]).split() == tokenizer.decode(ids[0, 4:], skip_special_tokens=True).split()


def test_streamed_text_is_the_generated_text(tokenizer):
    model = build()
    inputs = tokenizer("w5 w6 w7", return_tensors="pt", return_token_type_ids=False)
    expected = tokenizer.decode(model.generate(**inputs, max_new_tokens=8)[0, 3:])
    streamer = TextIteratorStreamer(tokenizer, skip_prompt=True, timeout=60)
    thread = threading.Thread(target=model.generate, kwargs={**inputs, "max_new_tokens": 8, "streamer": streamer})
    thread.start()
    assert "".join(streamer) == expected
    thread.join()
