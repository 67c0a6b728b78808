"""The recipe in each shipped checkpoint can still be trained, and is the one that the checkpoint says it came from."""

import pytest

from urzoo import zoo
from urzoo.errors import RecipeError
from urzoo.schema import content_sha256, read_yaml
from urzoo.training import load_recipe


@pytest.mark.parametrize("name", [*zoo.checkpoints(), *zoo.study_checkpoints()])
def test_a_shipped_recipe_is_read_today_with_the_digest_of_its_training(name):
    info = zoo.info(name)
    path = info.folder / "recipe.yaml"
    assert info.training is not None
    assert load_recipe(path).sha256 == info.training.recipe_sha256
    # What push and pull compare, without the schema of recipes.
    assert content_sha256(read_yaml(path, error=RecipeError)) == info.training.recipe_sha256
    assert load_recipe(path).name == name
