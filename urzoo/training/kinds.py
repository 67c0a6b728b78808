"""What differs between the kinds of recipe: whether the task admits the model, and how the data are prepared."""

from pathlib import Path

from urzoo.data import Split
from urzoo.errors import RecipeError
from urzoo.evaluation.task import load_task
from urzoo.training.images import check_image_task, prepare_images
from urzoo.training.initial import Initial
from urzoo.training.model import Prepared
from urzoo.training.recipe import ImageRecipe, Recipe, SeriesRecipe, TaughtTextRecipe
from urzoo.training.series import check_series_task, prepare_series
from urzoo.training.teacher import Teacher
from urzoo.training.texts import check_text_task, prepare_texts


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
    if isinstance(recipe, TaughtTextRecipe) and recipe.teacher.split in (recipe.data.split, task.data.split):
        raise RecipeError(
            f"teacher.split is {recipe.teacher.split!r}, which has labels; name a split without, or leave the section "
            "teacher out."
        )
    if isinstance(recipe, ImageRecipe):
        check_image_task(recipe, task)
    elif isinstance(recipe, SeriesRecipe):
        check_series_task(recipe, task)
    else:
        check_text_task(task)


def prepare(
    recipe: Recipe,
    training: Split,
    validation: Split,
    *,
    data_root: Path | str | None,
    cache: Path,
    initial: Initial | None,
    teacher: Teacher | None,
) -> Prepared:
    """What the trainer needs for a recipe: the model and the data in its form.

    Args:
        recipe: The recipe.
        training: The rows to learn from.
        validation: The rows held out of them.
        data_root: As for `urzoo.data.load_split`.
        cache: A folder for what can be made again.
        initial: The checkpoint to begin with, where the recipe names one.
        teacher: The checkpoint that labels further rows, where the recipe names one.
    """
    if isinstance(recipe, ImageRecipe):
        return prepare_images(recipe, training, validation)
    if isinstance(recipe, SeriesRecipe):
        return prepare_series(recipe, training, validation)
    return prepare_texts(
        recipe, training, validation, data_root=data_root, cache=cache, initial=initial, teacher=teacher
    )
