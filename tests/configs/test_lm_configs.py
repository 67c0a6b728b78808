from pathlib import Path

import pytest
import yaml

from tests.training.lm_tiny import articles, put_in_place
from urzoo import zoo
from urzoo.evaluation.task import load_task, tasks
from urzoo.training import load_recipe, train
from urzoo.training.kinds.language_model import LanguageModelRecipe

CONFIGS = Path(__file__).parents[2] / "configs"
RECIPES = [path for path in sorted(CONFIGS.glob("*/*.yaml")) if isinstance(load_recipe(path), LanguageModelRecipe)]


def test_there_are_recipes_and_no_two_make_the_same_checkpoint():
    names = [load_recipe(path).name for path in RECIPES]
    assert len(names) == len(set(names)) >= 3


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_recipe_fits_its_place(path):
    recipe = load_recipe(path)
    recipe.check()
    assert recipe.name in (f"{path.stem}-{recipe.task}", f"{path.stem.removesuffix('-lm')}-{path.parent.name}-lm")
    if recipe.task in tasks():
        assert load_task(recipe.task).problem.startswith("language-modelling")
        assert path.parent.name == recipe.task


def train_on_a_slice(path, folder):
    """The run of a recipe but for its size: a small layer, a small vocabulary, few tokens."""
    content = yaml.safe_load(path.read_text())
    if content["initialise_from"]:
        [first] = [other for other in RECIPES if load_recipe(other).name == content["initialise_from"]]
        train_on_a_slice(first, folder)
    content["model"] |= {"hidden_size": 16, "embedding_size": 8}
    content["tokenizer"]["vocab_size"] = 14 if content["tokenizer"]["kind"] == "words" else 300
    if content["model"]["adaptive_cutoffs"]:
        content["model"]["adaptive_cutoffs"] = [5, 9]
    if content["data"]["validation_documents"]:
        content["data"]["validation_documents"] = 2
    content["run"] |= {"batch_size": 2, "segment_tokens": 16, "steps": 3}
    content["cadence"] = {"log_every_steps": 1, "save_every_steps": 2, "validate_every_steps": 3}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(content))
    return content, train(folder / "recipe.yaml", runs=folder / "runs", progress=False)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_recipe_trains_on_a_slice(path, tmp_path, monkeypatch):
    put_in_place(monkeypatch, articles(20))
    content, place = train_on_a_slice(path, tmp_path)
    model, tokenizer = zoo.load(place), zoo.load_tokenizer(place)
    assert model.config.adaptive_cutoffs == content["model"]["adaptive_cutoffs"]
    assert model.config.vocab_size == len(tokenizer)
    ids = tokenizer(" the cat was seen . \n", return_tensors="pt")["input_ids"]
    assert model(input_ids=ids, labels=ids).loss.isfinite()
