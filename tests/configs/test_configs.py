from pathlib import Path

import numpy as np
import pytest
import yaml

from urzoo import zoo
from urzoo.data import Split
from urzoo.data.schema import load_data_set
from urzoo.training import load_recipe, train
from urzoo.training.kinds.images import build_processor
from urzoo.training.recipe_file import differences
from urzoo.training.rows import build_model

CONFIGS = Path(__file__).parents[2] / "configs"
# The recipes of generated sequences have a schema and tests of their own.
RECIPES = sorted(path for path in CONFIGS.glob("*/*.yaml") if "processor" in yaml.safe_load(path.read_text()))


def test_there_are_recipes_and_no_two_make_the_same_checkpoint():
    names = [load_recipe(path).name for path in RECIPES]
    assert names
    assert len(names) == len(set(names))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_recipe_fits_its_place_its_task_and_its_model(path):
    recipe = load_recipe(path)
    recipe.check()
    assert path.parent.name == recipe.task
    assert recipe.name == f"{path.stem}-{recipe.task}"
    processor = build_processor(recipe.processor)
    assert (processor.pixel_order is None) == (recipe.processor.permutation_seed is None)
    if recipe.model.hidden_size <= 128:
        assert build_model(recipe, [str(number) for number in range(10)]).config.gate == recipe.model.gate


def test_the_gatings_that_are_compared_differ_by_what_was_fixed_beforehand_alone():
    """By docs/pages/inside/gating_study.md; on sequential MNIST the earlier comparison is still there."""
    compared = [load_recipe(path) for path in RECIPES if "-seed" in path.stem and path.parent.name == "pmnist"]
    assert len(compared) == 15
    assert {recipe.model.tie_input_gate for recipe in compared} == {True}
    assert {recipe.run.seed for recipe in compared} == {0, 1, 2}
    assert {recipe.optimiser.learning_rate for recipe in compared} <= {5e-4, 1e-3, 2e-3}
    assert {(recipe.run.epochs, recipe.run.batch_size, recipe.selection.checkpoint) for recipe in compared} == {
        (20, 64, "last")
    }
    free = {"name", "model.cell", "model.gate", "optimiser.learning_rate", "run.seed"}
    for recipe in compared:
        assert {change.split(":")[0] for change in differences(compared[0], recipe)} <= free


@pytest.mark.slow
@pytest.mark.parametrize(
    "path", [path for path in RECIPES if path.stem[-1] not in "12"], ids=lambda path: f"{path.parent.name}/{path.stem}"
)
def test_a_recipe_trains_on_a_slice(path, tmp_path):
    content = yaml.safe_load(path.read_text())
    content["data"]["validation_rows"] = 10
    content["run"] |= {"epochs": 1, "batch_size": 2}
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(content))
    data_set = load_data_set(content["data"]["name"])
    image, label = data_set.columns
    shape = (14, 28, 28) if content["processor"]["do_grayscale"] else (14, 32, 32, 3)
    images = np.random.default_rng(0).integers(0, 256, size=shape, dtype=np.uint8)
    data = Split(data_set, "train", "0" * 64, "data root", {image: images, label: np.arange(14) % 10})
    place = train(recipe, runs=tmp_path, progress=False, data=data)
    assert zoo.load(place).config.hidden_size == content["model"]["hidden_size"]
