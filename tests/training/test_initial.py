"""Weights to begin with: what is taken of them, and which are refused."""

import json

import pytest
import torch

from tests.training.tiny import (
    tiny_language_model,
    tiny_texts,
    tiny_texts_recipe,
)
from urzoo import zoo
from urzoo.errors import CheckpointError, RecipeError
from urzoo.training import load_recipe, train
from urzoo.training.initial import begin_with
from urzoo.training.rows import build_model


def test_training_begins_with_the_given_embedding_and_layers(tmp_path):
    recipe = load_recipe(tiny_texts_recipe(tmp_path))
    initial = recipe.parents(tmp_path).initial
    assert initial is not None
    base = dict(zoo.load(tmp_path / "base" / "checkpoint").named_parameters())
    tokenizer = zoo.load_tokenizer(tmp_path / "base" / "checkpoint")
    model = build_model(recipe, ["neg", "pos"], vocab_size=len(tokenizer), pad_token_id=0)
    drawn = {name: value.detach().clone() for name, value in model.named_parameters()}
    begin_with(initial, model, tokenizer)
    for name, value in model.named_parameters():
        given = name in base and name.startswith(("model.embed_tokens", "model.layers"))
        assert torch.equal(value, base[name] if given else drawn[name]), name
        assert given == (not name.endswith("_reverse") and not name.startswith("head"))


def test_an_initial_checkpoint_that_is_not_there_is_named_with_the_remedy(tmp_path):
    with pytest.raises(RecipeError, match=r"neither .* nor a shipped checkpoint of that name. Train its recipe first"):
        train(tiny_texts_recipe(tmp_path, initialise_from="bass"), runs=tmp_path, progress=False, data=tiny_texts())


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"hidden_size": 5}, "has the shape"),
        ({"gate": "-R"}, "whose gate is '-R'; this recipe's is 'UR'"),
        ({"refine_offset": False}, "whose refine_offset is False; this recipe's is True"),
        ({"residual": True}, "whose residual is True; this recipe's is False"),
        ({"num_layers": 2}, "this model has no such part"),
    ],
)
def test_an_initial_checkpoint_that_does_not_fit_is_refused(tmp_path, fields, expected):
    tiny_language_model(tmp_path / "base" / "checkpoint", **fields)
    with pytest.raises(RecipeError, match=expected):
        train(tiny_texts_recipe(tmp_path), runs=tmp_path, progress=False, data=tiny_texts())


def test_an_initial_checkpoint_with_another_tokenizer_is_refused(tmp_path):
    other = tiny_language_model(tmp_path / "other" / "checkpoint")
    content = json.loads((other / "tokenizer.json").read_text())
    content["model"]["merges"] = content["model"]["merges"][:-1]
    content["model"]["vocab"].popitem()
    (other / "tokenizer.json").write_text(json.dumps(content))
    recipe = tiny_texts_recipe(tmp_path, tokenizer__checkpoint=str(other))
    with pytest.raises(RecipeError, match="whose tokenizer is not that of the recipe"):
        train(recipe, runs=tmp_path, progress=False, data=tiny_texts())


def test_a_damaged_initial_checkpoint_is_refused(tmp_path):
    recipe = tiny_texts_recipe(tmp_path)
    weights = tmp_path / "base" / "checkpoint" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-5])
    with pytest.raises(CheckpointError, match="truncated or damaged"):
        train(recipe, runs=tmp_path, progress=False, data=tiny_texts())
