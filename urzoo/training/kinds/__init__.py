"""The kinds of training data, a file each: the sections of its recipes, its data, and how a job is prepared of them.

This table is the only place that knows them all. A kind knows no other; runs, the trainer and the writer of
checkpoints know the job that a kind prepares.
"""

from typing import Any

from urzoo.errors import RecipeError, unknown
from urzoo.training.kinds.images import ImageRecipe
from urzoo.training.kinds.language_model import LanguageModelRecipe
from urzoo.training.kinds.series import SeriesRecipe
from urzoo.training.kinds.synthetic import SCORES, SyntheticRecipe
from urzoo.training.kinds.texts import TaughtTextRecipe, TextRecipe, UnlabelledTextRecipe
from urzoo.training.recipe import BaseRecipe

# By architecture, the sections that set a kind apart from the next ones of its row, and its recipe.
_KINDS: dict[str, tuple[tuple[set[str], type[BaseRecipe]], ...]] = {
    "URLSTMForImageClassification": ((set(), ImageRecipe),),
    "URLSTMForSequenceClassification": (
        ({"tokenizer", "teacher"}, TaughtTextRecipe),
        ({"tokenizer", "unlabelled"}, UnlabelledTextRecipe),
        ({"tokenizer"}, TextRecipe),
        (set(), SeriesRecipe),
    ),
    "URLSTMForCausalLM": ((set(), LanguageModelRecipe),),
}


def kind_of(content: dict[str, Any]) -> type[BaseRecipe]:
    """The kind of recipe that the content of a file is meant to be.

    Raises:
        RecipeError: Its architecture is missing or none that is trained.
    """
    if content.get("task") in SCORES:
        return SyntheticRecipe
    architecture = content.get("architecture")
    if architecture is None:
        raise RecipeError(f"recipe key architecture is missing; expected {', '.join(_KINDS)}.")
    if architecture not in _KINDS:
        raise RecipeError(unknown("architecture", str(architecture), _KINDS))
    return next(kind for sections, kind in _KINDS[architecture] if sections <= content.keys())
