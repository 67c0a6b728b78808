"""Training by recipes: `train` makes a complete checkpoint folder of a recipe, resumable at any moment."""

from urzoo.training.recipe import BaseRecipe
from urzoo.training.recipe_file import load_recipe
from urzoo.training.run import TrainingStoppedError, train

__all__ = ["BaseRecipe", "TrainingStoppedError", "load_recipe", "train"]
