from pathlib import Path

import pytest
import yaml

from urzoo.training.model import build_model, build_processor
from urzoo.training.recipe import load_recipe
from urzoo.training.run import check_task

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
    check_task(recipe)
    assert path.parent.name == recipe.task
    assert recipe.name == f"{path.stem}-{recipe.task}"
    processor = build_processor(recipe)
    assert (processor.pixel_order is None) == (recipe.processor.permutation_seed is None)
    if recipe.model.hidden_size <= 128:
        assert build_model(recipe, [str(number) for number in range(10)]).config.gate == recipe.model.gate
