"""What differs between the kinds of recipe: whether the task admits the model, and how the data are prepared."""

from urzoo.data import Split
from urzoo.errors import RecipeError
from urzoo.evaluation.task import load_task
from urzoo.training.images import check_image_task, prepare_images
from urzoo.training.model import Prepared
from urzoo.training.recipe import ImageRecipe, Recipe
from urzoo.training.series import check_series_task, prepare_series


def check_task(recipe: Recipe) -> None:
    """Refuse a recipe whose model the task would not admit, or that would learn from the test split.

    Raises:
        RecipeError: The recipe and the task disagree; the message names the key.
    """
    task = load_task(recipe.task)
    if recipe.data.name != task.data.name:
        raise RecipeError(f"data.name is {recipe.data.name!r}, but task {task.name} is about {task.data.name!r}.")
    if recipe.data.split == task.data.split:
        raise RecipeError(
            f"data.split is {recipe.data.split!r}, which task {task.name} is scored on; name the training split."
        )
    if isinstance(recipe, ImageRecipe):
        check_image_task(recipe, task)
    else:
        check_series_task(recipe, task)


def prepare(recipe: Recipe, training: Split, validation: Split) -> Prepared:
    """What the trainer needs for a recipe: the model and the data in its form."""
    if isinstance(recipe, ImageRecipe):
        return prepare_images(recipe, training, validation)
    return prepare_series(recipe, training, validation)
