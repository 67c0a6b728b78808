"""Models that are not urzoo's: any causal language model, sequence classifier or image classifier of transformers."""

import inspect
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import (
    BertConfig,
    BertLMHeadModel,
    GPT2Config,
    GPT2ForSequenceClassification,
    PreTrainedTokenizerFast,
)

from tests.evaluation.conftest import name_of
from tests.evaluation.examples import FOREIGN, WIKI, letters, make_foreign, reviews, run, wiki
from urzoo.cli import main
from urzoo.data.wikitext import detokenised, lines, pages, words_of_page
from urzoo.errors import CheckpointError, UsageError
from urzoo.evaluation.sequence_classification import longest_text
from urzoo.models import URLSTMConfig, URLSTMForSequenceClassification
from urzoo.zoo import load, load_tokenizer


def windowed(folder: Path, ids: list[int], window: int, *, fill: bool = False) -> float:
    """The log-probability of tokens that are read in windows, each conditioned on one token before it.

    With `fill` the last window reads as many tokens as the others, of which those of the others are not scored again.
    """
    model, tokenizer = load(folder), load_tokenizer(folder)
    total = 0.0
    text = [tokenizer.bos_token_id or tokenizer.eos_token_id, *ids]  # the input at i predicts the token i
    with torch.inference_mode():
        for at in range(0, len(ids), window):
            targets = ids[at : at + window]
            end = at + len(targets)
            inputs = text[max(0, end - window) if fill else at : end]
            logits = model(input_ids=torch.tensor([inputs])).logits[0].double()[-len(targets) :]
            total += float(logits.log_softmax(-1)[torch.arange(len(targets)), torch.tensor(targets)].sum())
    return total


@pytest.mark.parametrize(("kind", "window"), [("gpt2", 16), ("llama", 24), ("mamba", 2048)])
def test_a_causal_language_model_reads_the_stream_in_windows(tmp_path: Path, kind: str, window: int):
    folder, split = make_foreign(kind, tmp_path / kind)
    tokenizer = load_tokenizer(folder)
    ids = [token for line in lines(WIKI) for token in tokenizer(line)["input_ids"]]
    words = sum(len(line.split()) + 1 for line in lines(WIKI))
    result = run(folder, "wikitext103", split)
    expected = np.exp(-windowed(folder, ids, window) / words)
    assert result.metrics["word_perplexity_stream"] == pytest.approx(expected, rel=1e-6)
    assert result.metrics["tokens_per_word"] == len(ids) / words
    assert result.data.subset == f"read in windows of {window} tokens"
    assert (result.model.cell, result.model.gate, result.model.training, result.backend) == (None, None, None, "torch")


def test_a_model_with_a_limited_context_reads_pages_in_windows(tmp_path: Path):
    folder, split = make_foreign("gpt2-pages", tmp_path / "gpt2")
    tokenizer = load_tokenizer(folder)
    total = sum(windowed(folder, tokenizer(detokenised(page))["input_ids"], 16, fill=True) for page in pages(WIKI))
    result = run(folder, "wikitext103_pages", split)
    words = sum(map(words_of_page, pages(WIKI)))
    assert result.metrics["word_perplexity"] == pytest.approx(np.exp(-total / words), rel=1e-6)
    assert result.data.subset == "2 pages, read in windows of 16 tokens"


def test_an_enormous_context_is_read_in_windows_that_fit_memory(tmp_path: Path):
    folder, split = make_foreign("llama", tmp_path / "llama")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 131072}))
    assert run(folder, "wikitext103", split).data.subset == "read in windows of 4096 tokens"


@pytest.mark.parametrize("loses", ["capitals", "line ends"])
def test_a_tokenizer_that_loses_part_of_the_text_is_refused(tmp_path: Path, loses: str):
    folder, split = make_foreign("gpt2", tmp_path / "gpt2")
    tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))
    if loses == "capitals":
        tokenizer.normalizer = normalizers.Lowercase()
        tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = ["<unk>", "</s>"]
    tokenizer.train_from_iterator(WIKI, trainers.WordLevelTrainer(vocab_size=300, special_tokens=special))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="</s>").save_pretrained(folder)
    with pytest.raises(CheckpointError, match="do not give the text back, which would flatter"):
        run(folder, "wikitext103", split)


@pytest.mark.parametrize("kind", [kind for kind, task in FOREIGN.items() if task == "imdb"])
def test_a_text_classifier_reads_as_much_as_its_positions_allow(tmp_path: Path, kind: str):
    folder, split = make_foreign(kind, tmp_path / kind)
    result = run(folder, "imdb", split)
    assert result.data.subset == "the first 32 tokens of each text"
    assert any(len(load_tokenizer(folder)(text)["input_ids"]) > 32 for text in split.texts)
    assert result.model.architecture.endswith("ForSequenceClassification")


@pytest.mark.parametrize("kind", [kind for kind, task in FOREIGN.items() if task == "imdb"])
def test_a_text_classifier_scores_what_it_does_by_itself(tmp_path: Path, kind: str):
    """One text at a time, given what its tokenizer gives and it takes."""
    folder, split = make_foreign(kind, tmp_path / kind)
    model, tokenizer = load(folder), load_tokenizer(folder)
    takes = inspect.signature(model.forward).parameters
    chosen, right = [], []
    for text, label in zip(split.texts, split.labels, strict=True):
        inputs = tokenizer(text, truncation=True, max_length=32, return_tensors="pt")
        with torch.inference_mode():
            logits = model(**{name: value for name, value in inputs.items() if name in takes}).logits[0].double()
        chosen.append(float(logits.log_softmax(-1)[label]))
        right.append(int(logits.argmax()) == label)
    for batch_size in (1, 32):
        metrics = run(folder, "imdb", split, batch_size=batch_size).metrics
        assert metrics == pytest.approx({"accuracy": np.mean(right), "cross_entropy": -np.mean(chosen)}, rel=1e-6)


def test_a_classifier_of_series_scores_what_it_does_by_itself(tmp_path: Path):
    """One that answers at the last position, whatever stands there."""
    torch.manual_seed(0)
    config = GPT2Config(n_positions=64, n_embd=3, n_layer=1, n_head=1, vocab_size=9, num_labels=20, pad_token_id=0)
    GPT2ForSequenceClassification(config).save_pretrained(tmp_path / "gpt2")
    split, model = letters(), load(tmp_path / "gpt2")
    chosen = []
    for series, label in zip(split.sequences, split.labels, strict=True):
        with torch.inference_mode():
            logits = model(inputs_embeds=torch.from_numpy(series)[None]).logits[0].double()
        chosen.append(float(logits.log_softmax(-1)[label]))
    for batch_size in (1, 7):
        found = run(tmp_path / "gpt2", "character_trajectories", split, batch_size=batch_size)
        assert found.metrics["cross_entropy"] == pytest.approx(-np.mean(chosen), rel=1e-6)


@pytest.mark.parametrize("is_decoder", [False, True])
def test_a_language_model_that_sees_what_it_is_to_predict_is_refused(tmp_path: Path, is_decoder: bool):
    folder, split = make_foreign("gpt2", tmp_path / "bert")
    config = BertConfig(
        vocab_size=300,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=32,
        is_decoder=is_decoder,
    )
    BertLMHeadModel(config).save_pretrained(folder)
    if is_decoder:
        assert run(folder, "wikitext103", split).data.subset == "read in windows of 32 tokens"
        return
    with pytest.raises(CheckpointError, match="is no causal language model: its scores at a token change"):
        run(folder, "wikitext103", split)


def test_the_tokenizers_limit_counts_where_it_is_the_lower_one(tmp_path: Path):
    folder, _ = make_foreign("bert", tmp_path / "bert")
    tokenizer = load_tokenizer(folder)
    model = load(folder)
    tokenizer.model_max_length = 10
    assert longest_text(tokenizer, model) == 10
    tokenizer.model_max_length = int(1e30)
    assert longest_text(tokenizer, model) == 32
    assert longest_text(tokenizer, URLSTMForSequenceClassification(URLSTMConfig(vocab_size=9, hidden_size=4))) is None


def test_a_model_that_cannot_run_is_told_in_one_line(tmp_path: Path):
    folder, split = make_foreign("vit", tmp_path / "vit")
    processor = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").write_text(json.dumps({**processor, "size": {"height": 9, "width": 9}}))
    with pytest.raises(
        CheckpointError, match=r"cannot be run on task smnist, in a batch with row 0: ValueError"
    ) as caught:
        run(folder, "smnist", split)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "task"), [("gpt2", "imdb"), ("bert", "wikitext103"), ("vit", "imdb"), ("vit", "copy")]
)
def test_a_model_of_another_kind_is_refused(tmp_path: Path, kind: str, task: str):
    folder, _ = make_foreign(kind, tmp_path / kind)
    with pytest.raises(UsageError, match=f"task {task} needs a model"):
        run(folder, task, reviews() if task == "imdb" else wiki())


def test_the_command_evaluates_a_folder_and_the_board_marks_it_as_not_ours(tmp_path: Path):
    from urzoo.evaluation.schema import read_result
    from urzoo.leaderboard.build import make_board

    folder, _ = make_foreign("vit", tmp_path / "vit-tiny")
    assert main(["eval", str(folder), "--task", "smnist", "--results", str(tmp_path / "r")]) == 0
    result = read_result(tmp_path / "r" / name_of(folder) / "smnist.json")
    assert (result.samples, result.model.source) == (10_000, "folder")
    board, _ = make_board(tmp_path / "r", tmp_path)
    [row] = board.section("smnist").measured
    assert (row.kind, row.rank, row.status) == ("baseline", None, "unranked")
    assert row.architecture == "ViTForImageClassification"
