"""The recipes of series and texts: they fit their tasks and each other, and train on a slice."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from tests.training.lm_tiny import articles, put_in_place
from tests.training.tiny import tiny_series, tiny_texts
from urzoo import zoo
from urzoo.training import job, load_recipe, train
from urzoo.training.kinds.language_model import LanguageModelRecipe
from urzoo.training.kinds.series import SeriesRecipe
from urzoo.training.kinds.texts import TaughtTextRecipe, TextRecipe
from urzoo.training.recipe import SequenceRecipe

CONFIGS = Path(__file__).parents[2] / "configs"
RECIPES = [path for path in sorted(CONFIGS.glob("*/*.yaml")) if isinstance(load_recipe(path), SequenceRecipe)]


def named(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


def test_there_are_recipes_of_series_and_of_texts():
    assert {type(load_recipe(path)) for path in RECIPES} == {SeriesRecipe, TextRecipe, TaughtTextRecipe}


@pytest.mark.parametrize("path", RECIPES, ids=named)
def test_a_recipe_fits_its_place_and_its_task(path):
    recipe = load_recipe(path)
    recipe.check()
    assert path.parent.name == recipe.task
    assert recipe.name == f"{path.stem}-{recipe.task}"


@pytest.mark.parametrize("path", [path for path in RECIPES if load_recipe(path).initial_checkpoint], ids=named)
def test_a_second_stage_has_the_tokenizer_and_the_sizes_of_the_first(path):
    second = load_recipe(path)
    stages = [load_recipe(other) for other in sorted(CONFIGS.glob("*/*.yaml"))]
    first = next(stage for stage in stages if stage.name == second.initial_checkpoint)
    assert second.tokenizer == first.tokenizer
    for key in ("cell", "gate", "tie_input_gate", "refine_offset", "hidden_size", "embedding_size", "num_layers"):
        assert getattr(second.model, key) == getattr(first.model, key)


def test_the_recipes_of_series_differ_in_the_resampling_alone():
    plain, rates = (
        load_recipe(CONFIGS / "character_trajectories" / f"{name}.yaml") for name in ("urlstm-64", "urlstm-64-rates")
    )
    scales = {"time_scale_min": plain.augmentation.time_scale_min, "time_scale_max": plain.augmentation.time_scale_max}
    assert scales == {"time_scale_min": 1.0, "time_scale_max": 1.0}
    same = rates.model_copy(update={"augmentation": rates.augmentation.model_copy(update=scales), "name": plain.name})
    assert same == plain


def small(path: Path, folder: Path) -> Path:
    """The recipe with small sizes and few rows, and otherwise as it is."""
    content = yaml.safe_load(path.read_text())
    content["model"]["hidden_size"] = 8
    if "tokenizer" in content:
        content["model"]["embedding_size"] = 8
        content["tokenizer"]["vocab_size"] = 300
    if isinstance(load_recipe(path), LanguageModelRecipe):
        content["model"]["adaptive_cutoffs"] = content["model"]["adaptive_cutoffs"] and [50, 150]
        if content["data"]["validation_documents"]:
            content["data"]["validation_documents"] = 2
        content["run"] |= {"batch_size": 2, "segment_tokens": 16, "steps": 3}
        content["cadence"] = {"log_every_steps": 1, "save_every_steps": 2, "validate_every_steps": 3}
    else:
        content["data"]["validation_rows"] = 10
        content["run"] |= {"epochs": 1, "batch_size": 4}
        if "teacher" in content:
            content["teacher"]["minimum_confidence"] = 0.0
    recipe = folder / f"{content['name']}.yaml"
    recipe.write_text(yaml.safe_dump(content))
    return recipe


def trained(path: Path, folder: Path) -> Path:
    """What a small recipe gives, once the stages that it begins with are trained."""
    recipe = load_recipe(path)
    for name in (
        recipe.initial_checkpoint,
        recipe.teacher.checkpoint if isinstance(recipe, TaughtTextRecipe) else None,
    ):
        if name is not None and not (folder / name).exists():
            stages = sorted(CONFIGS.glob("*/*.yaml"))
            trained(next(stage for stage in stages if yaml.safe_load(stage.read_text())["name"] == name), folder)
    data = tiny_series(40) if isinstance(recipe, SeriesRecipe) else tiny_texts(40)
    given = None if isinstance(recipe, LanguageModelRecipe) else data
    return train(small(path, folder), runs=folder, progress=False, data=given)


@pytest.mark.parametrize("path", RECIPES, ids=named)
def test_a_recipe_trains_on_a_slice_all_stages_of_it(path, tmp_path, monkeypatch):
    put_in_place(monkeypatch, articles(20))
    monkeypatch.setattr(job, "load_split", lambda *_, **__: replace(tiny_texts(40), split="unsupervised"))
    place = trained(path, tmp_path)
    summary = zoo.info(place).training
    assert summary is not None
    assert (summary.initialised_from is None) == (load_recipe(path).initial_checkpoint is None)
    assert zoo.load(place).config.hidden_size == 8
