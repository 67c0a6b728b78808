"""Text from a checkpoint as `urzoo train` leaves it: pipelines, streaming, batches of any padding."""

import threading

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, TextIteratorStreamer, pipeline

from urzoo.models import URLSTMConfig, URLSTMForCausalLM
from urzoo.training.text.recipe import ByteLevelTokenizerRecipe, TextSource
from urzoo.training.text.tokenizer import train_tokenizer

LINES = [" The cat saw the river . \n", " The river was seen in 1984 . \n", " It 's <unk> , said the cat . \n"] * 4
TEXTS = ["The cat", "", "\U0001f408 на́ 川 <|endoftext|>", " The river was seen . \n The"]
OPTIONS = {"max_new_tokens": 12, "do_sample": False}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("writer")
    source = TextSource(name="wikitext-2", split="train", documents="pages", surface="as-is", rare_words_below=None)
    recipe = ByteLevelTokenizerRecipe(
        kind="byte-level-bpe", vocab_size=300, minimum_frequency=2, pattern="wikitext", texts=[source]
    )
    tokenizer = train_tokenizer(recipe, LINES)
    torch.manual_seed(0)
    config = URLSTMConfig(
        vocab_size=len(tokenizer),
        hidden_size=24,
        embedding_size=12,
        initializer_range=1.0,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    URLSTMForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def parts(checkpoint):
    return AutoModelForCausalLM.from_pretrained(checkpoint), AutoTokenizer.from_pretrained(checkpoint)


def test_the_pipeline_writes_the_same_alone_and_in_a_batch(checkpoint):
    write = pipeline("text-generation", model=str(checkpoint))
    alone = [write(text, **OPTIONS)[0]["generated_text"] for text in TEXTS]
    # A prompt comes back as it was, whatever it holds.
    assert all(
        written.startswith(text) and len(written) > len(text) for written, text in zip(alone, TEXTS, strict=True)
    )
    full = [text for text in TEXTS if text]
    together = [answer[0]["generated_text"] for answer in write(full, batch_size=3, **OPTIONS)]
    assert together == [written for written, text in zip(alone, TEXTS, strict=True) if text]


def test_a_text_ends_at_a_stop_string(parts):
    model, tokenizer = parts
    inputs = tokenizer("The cat", return_tensors="pt")
    length = inputs["input_ids"].shape[1]
    # An untrained model would write parts of letters too, which no string can match.
    letters = tokenizer("The river was seen in 1984", add_special_tokens=False)["input_ids"]
    options = {**OPTIONS, "prefix_allowed_tokens_fn": lambda *_: letters}
    whole = model.generate(**inputs, **options)[0].tolist()
    stop = tokenizer.decode(whole[length + 1 : length + 3])
    written = model.generate(**inputs, **options, stop_strings=[stop], tokenizer=tokenizer)[0].tolist()
    assert written == whole[: len(written)]
    assert length < len(written) <= length + 3
    assert stop in tokenizer.decode(written[length:])


def test_streamed_pieces_are_the_generated_text(parts):
    model, tokenizer = parts
    for text in (TEXTS[0], TEXTS[2]):
        inputs = tokenizer(text, return_tensors="pt")
        written = model.generate(**inputs, **OPTIONS)[0, inputs["input_ids"].shape[1] :]
        streamer = TextIteratorStreamer(tokenizer, skip_prompt=True, timeout=60, skip_special_tokens=True)
        thread = threading.Thread(target=model.generate, kwargs={**inputs, **OPTIONS, "streamer": streamer})
        thread.start()
        assert "".join(streamer) == tokenizer.decode(written, skip_special_tokens=True)
        thread.join()


def test_rows_padded_on_either_side_continue_as_they_do_alone(parts):
    model, tokenizer = parts
    rows = [tokenizer(text)["input_ids"] for text in (TEXTS[0], TEXTS[3], TEXTS[2])]
    width = max(map(len, rows)) + 2
    ids = torch.full((3, width), tokenizer.pad_token_id)
    mask = torch.zeros_like(ids)
    # On the left, on the right, on both sides: in one batch.
    for number, (row, start) in enumerate(zip(rows, (width - len(rows[0]), 0, 1), strict=True)):
        ids[number, start : start + len(row)] = torch.tensor(row)
        mask[number, start : start + len(row)] = 1
    together = model.generate(ids, attention_mask=mask, **OPTIONS)[:, width:]
    for number, row in enumerate(rows):
        alone = model.generate(torch.tensor([row]), **OPTIONS)[0, len(row) :]
        assert together[number, : len(alone)].tolist() == alone.tolist()


def test_a_row_of_padding_is_scored_from_the_empty_state_and_leaves_the_others_alone(parts):
    model, tokenizer = parts
    ids = torch.tensor([[tokenizer.pad_token_id] * 3, tokenizer(TEXTS[3])["input_ids"][:3]])
    mask = torch.tensor([[0, 0, 0], [1, 1, 1]])
    with torch.inference_mode():
        scores = model(ids, attention_mask=mask).logits
        empty = model.lm_head(model.projection(torch.zeros(1, model.config.hidden_size)))
        alone = model(ids[1:]).logits
    torch.testing.assert_close(scores[0], empty.expand(3, -1))
    torch.testing.assert_close(scores[1], alone[0])
    written = model.generate(ids, attention_mask=mask, **OPTIONS)
    assert written[1].tolist()[: 3 + 4] == model.generate(ids[1:], **OPTIONS)[0].tolist()[: 3 + 4]


def test_a_step_reads_one_token_and_one_state_however_much_was_written(parts, monkeypatch):
    model, tokenizer = parts
    steps = []
    forward = URLSTMForCausalLM.forward

    def watched(self, input_ids=None, attention_mask=None, *args, **kwargs):
        output = forward(self, input_ids, attention_mask, *args, **kwargs)
        state = sum(part.numel() for layer in output.cache.states for part in layer)
        steps.append((input_ids.shape, None if attention_mask is None else attention_mask.shape, state))
        return output

    monkeypatch.setattr(URLSTMForCausalLM, "forward", watched)
    inputs = tokenizer("The cat", return_tensors="pt")
    model.generate(**inputs, max_new_tokens=300, min_new_tokens=300)
    assert len(steps) == 300
    assert set(steps[1:]) == {(torch.Size([1, 1]), None, 2 * model.config.hidden_size)}
