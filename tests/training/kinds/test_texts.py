"""Training on texts: what a checkpoint of them holds, and what is refused."""

from functools import partial

import numpy as np
import pytest
import torch

from tests.training.tiny import classification_scores, tiny_texts, tiny_texts_recipe
from urzoo import zoo
from urzoo.data import hold_out
from urzoo.errors import DataError, RecipeError
from urzoo.hub.card import check_card
from urzoo.training import load_recipe, train
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


def test_rows_without_a_label_are_refused(tmp_path):
    split = tiny_texts()
    split.columns["label"][5] = -1
    with pytest.raises(DataError, match=r"has a row without a label"):
        train(tiny_texts_recipe(tmp_path), runs=tmp_path, progress=False, data=split)
