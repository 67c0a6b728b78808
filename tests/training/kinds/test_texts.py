"""Training on texts: what a checkpoint of them holds, and what is refused."""

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.training.lm_tiny import SOURCE
from tests.training.tiny import classification_scores, stop_after_a_step, tiny_texts, tiny_texts_recipe, train_tiny
from urzoo import zoo
from urzoo.data import hold_out
from urzoo.errors import CheckpointError, DataError, RecipeError
from urzoo.hub.card import check_card
from urzoo.training import job, load_recipe, train
from urzoo.training.batches import SequenceData
from urzoo.training.kinds.texts import stretch
from urzoo.zoo.schema import read_training_summary

KIND = "texts"


def test_a_checkpoint_of_texts_has_the_scores_it_claims_on_whole_texts(checkpoint):
    summary = read_training_summary(checkpoint / "training.json")
    _, validation = hold_out(tiny_texts(), 10, 0)
    model, tokenizer = zoo.load(checkpoint), zoo.load_tokenizer(checkpoint)
    assert tokenizer.padding_side == "right"
    with torch.no_grad():
        rows = [tokenizer(text, return_tensors="pt")["input_ids"].long() for text in validation.texts]
        logits = torch.cat([model(input_ids=row).logits for row in rows]).numpy()
    assert max(row.shape[1] for row in rows) > 12
    accuracy, cross_entropy = classification_scores(logits, validation.labels)
    assert summary.validation["accuracy"] == pytest.approx(accuracy)
    assert summary.validation["cross_entropy"] == pytest.approx(cross_entropy, rel=1e-5)


def test_a_checkpoint_says_which_weights_it_began_with(checkpoint):
    base = zoo.info(checkpoint.parents[1] / "base" / "checkpoint")
    initial = read_training_summary(checkpoint / "training.json").initialised_from
    assert initial is not None
    assert (initial.name, initial.weights_sha256) == ("base", base.weights_sha256)
    assert base.weights_sha256[:12] in (checkpoint / "README.md").read_text()
    check_card(checkpoint, [])


def test_a_classifier_does_not_begin_with_one_that_has_learnt_what_it_holds_out(checkpoint, tmp_path):
    folder = checkpoint.parents[1]
    second = {"name": "second", "initialise_from": "tiny"}
    assert load_recipe(tiny_texts_recipe(tmp_path, **second)).parents(folder).initial.folder == checkpoint
    other = load_recipe(tiny_texts_recipe(tmp_path, **second, data__validation_seed=1))
    with pytest.raises(RecipeError, match=r"initialise_from is .*tiny.*, whose recipe has other rows held out"):
        other.parents(folder)


@pytest.mark.parametrize("change", ["more rows", "another order"])
def test_a_classifier_does_not_begin_with_one_for_which_the_same_draw_held_out_other_rows(checkpoint, tmp_path, change):
    split = tiny_texts(52) if change == "more rows" else tiny_texts().select(np.arange(45)[::-1])
    recipe = tiny_texts_recipe(tmp_path, name="second", initialise_from="tiny")
    with pytest.raises(
        RecipeError, match=r"initialise_from is .*tiny.*, which has learnt from imdb \(train\) as it was"
    ):
        train(recipe, runs=checkpoint.parents[1], progress=False, data=split)


def test_a_line_end_that_pads_too_is_learnt(tmp_path):
    words = {"kind": "words", "vocab_size": 30, "texts": [SOURCE | {"name": "imdb"}]}
    recipe = tiny_texts_recipe(tmp_path, tokenizer=words, initialise_from=None, optimiser__weight_decay=0.0)
    split = tiny_texts()
    lines = replace(split, columns=split.columns | {"text": [text.replace(" film", "\n") for text in split.texts]})
    place = train_tiny("texts", recipe, tmp_path, data=lines)
    end = zoo.load_tokenizer(place).pad_token_id
    assert zoo.load_tokenizer(place).decode([end]) == "<eos>"
    assert load_file(place / "model.safetensors")["model.embed_tokens.weight"][end].any(), "it begins with zeros"


def test_a_long_text_is_cut_to_a_stretch_that_changes_with_the_epoch():
    tokens = [np.arange(100, dtype=np.int32), np.arange(5, dtype=np.int32), np.zeros(0, np.int32)]
    data = SequenceData("input_ids", tokens, np.zeros(3, np.int64), partial(stretch, longest=10, seed=0), padding=999)
    starts = set()
    for epoch in range(20):
        batch = data.batch(np.arange(3), epoch=epoch)
        assert batch["input_ids"].shape == (3, 10)
        assert batch["attention_mask"].sum(1).tolist() == [10, 5, 0]
        assert batch["input_ids"][1].tolist() == [0, 1, 2, 3, 4, *[999] * 5]
        start = int(batch["input_ids"][0, 0])
        assert batch["input_ids"][0].tolist() == list(range(start, start + 10))
        starts.add(start)
    assert len(starts) > 10


def test_a_text_recipe_of_another_task_is_refused(tmp_path):
    path = tiny_texts_recipe(tmp_path, task="character_trajectories", data__name="character-trajectories")
    with pytest.raises(RecipeError, match="which is series-classification; expected one of text-classification"):
        load_recipe(path).check()


def test_a_tokenizer_is_not_made_of_the_text_that_is_scored(tmp_path):
    texts = {"name": "imdb", "split": "test", "documents": "rows", "surface": "as-is", "rare_words_below": None}
    tokenizer = {"kind": "byte-level-bpe", "vocab_size": 300, "minimum_frequency": 2, "pattern": "gpt2"}
    path = tiny_texts_recipe(tmp_path, tokenizer=tokenizer | {"texts": [texts]})
    with pytest.raises(RecipeError, match=r"tokenizer\.texts names imdb \(test\), which figures are reported on"):
        load_recipe(path).check()


def test_rows_without_a_label_are_refused(tmp_path):
    split = tiny_texts()
    split.columns["label"][5] = -1
    with pytest.raises(DataError, match=r"has a row without a label"):
        train(tiny_texts_recipe(tmp_path), runs=tmp_path, progress=False, data=split)


def test_a_tokenizer_without_padding_is_refused(tmp_path):
    recipe = tiny_texts_recipe(tmp_path)
    file = tmp_path / "base" / "checkpoint" / "tokenizer_config.json"
    content = json.loads(file.read_text())
    del content["pad_token"]
    file.write_text(json.dumps(content))
    with pytest.raises(RecipeError, match=r"tokenizer\.checkpoint names a tokenizer without pad_token; name one"):
        train(recipe, runs=tmp_path, progress=False, data=tiny_texts())


UNLABELLED = {"split": "unsupervised", "radius": 0.05, "weight": 1.0}


@pytest.fixture
def unlabelled(monkeypatch):
    """Texts without labels in place of the data set's."""
    split = tiny_texts(rows=60)
    columns = {"text": split.texts[20:], "label": np.full(40, -1, np.int64)}
    found = replace(split, split="unsupervised", digest="ab" * 32, columns=columns)
    monkeypatch.setattr(job, "load_split", lambda *_, **__: found)


def test_texts_without_labels_change_the_weights_and_are_recorded(tmp_path, unlabelled):
    weights = {}
    for name, changes in {"plain": {}, "none": {"weight": 1e-20}, "steady": {"weight": 100.0}}.items():
        path = tiny_texts_recipe(
            tmp_path,
            name=name,
            run__adversarial_radius=0.0,
            **({"unlabelled": UNLABELLED | changes} if changes else {}),
        )
        place = train(path, runs=tmp_path, progress=False, data=tiny_texts())
        weights[name] = load_file(place / "model.safetensors")
        check_card(place, [])
    summary = read_training_summary(place / "training.json")
    assert [(data.split, data.rows_train) for data in summary.additional_data] == [("unsupervised", 40)]
    assert summary.data.rows_train == 35
    # Texts that do not count change nothing: neither the dropout of the labelled ones nor their order.
    for name, value in weights["plain"].items():
        torch.testing.assert_close(weights["none"][name], value, rtol=1e-4, atol=1e-5)
    assert any((weights["steady"][name] - value).abs().max() > 1e-3 for name, value in weights["plain"].items())


def test_a_run_does_not_go_on_with_other_texts_without_labels(tmp_path, unlabelled, monkeypatch):
    path = tiny_texts_recipe(tmp_path, unlabelled=UNLABELLED)
    stop_after_a_step("texts", path, tmp_path)
    others = replace(job.load_split(), digest="cd" * 32)
    monkeypatch.setattr(job, "load_split", lambda *_, **__: others)
    with pytest.raises(CheckpointError, match=r"on other data .* Pass --restart"):
        train(path, runs=tmp_path, progress=False, data=tiny_texts())


def test_a_run_with_texts_without_labels_goes_on_to_the_same_bits(tmp_path, unlabelled):
    sums = []
    for way in ("whole", "stopped"):
        (tmp_path / way).mkdir()
        path = tiny_texts_recipe(tmp_path / way, unlabelled=UNLABELLED)
        if way == "stopped":
            stop_after_a_step("texts", path, tmp_path / way)
        place = train(path, runs=tmp_path / way, progress=False, data=tiny_texts())
        sums.append(read_training_summary(place / "training.json").weights_sha256)
    assert sums[0] == sums[1]


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"split": "train"}, "unlabelled.split is 'train', which has labels; name a split without"),
        ({"split": "test"}, "unlabelled.split is 'test', which has labels; name a split without"),
        ({"radius": 0.0}, "unlabelled.radius"),
        ({"weight": 0.0}, "unlabelled.weight"),
        ({"wieght": 1.0}, "Did you mean 'weight'"),
    ],
)
def test_a_wrong_section_of_texts_without_labels_is_refused(tmp_path, changes, complaint):
    with pytest.raises(RecipeError, match=complaint):
        load_recipe(tiny_texts_recipe(tmp_path, unlabelled=UNLABELLED | changes)).check()
