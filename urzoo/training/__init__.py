"""Training by recipes: `train` makes a complete checkpoint folder of a recipe, resumable at any moment."""

from urzoo.training.recipe import Recipe, load_recipe
from urzoo.training.run import TrainingStoppedError, train

__all__ = ["Recipe", "TrainingStoppedError", "load_recipe", "train"]
