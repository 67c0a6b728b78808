"""The kinds of training data, a file each: the sections of its recipes, its data, and how a job is prepared of them.

This table is the only place that knows them all. A kind knows no other; runs, the trainer and the writer of
checkpoints know the job that a kind prepares.
"""

from typing import Any, get_args

from urzoo.errors import RecipeError, unknown
from urzoo.training.kinds.images import ImageRecipe
from urzoo.training.kinds.language_model import LanguageModelRecipe
from urzoo.training.kinds.series import SeriesRecipe
from urzoo.training.kinds.synthetic import SyntheticRecipe
from urzoo.training.kinds.texts import TaughtTextRecipe, TextRecipe, UnlabelledTextRecipe
from urzoo.training.recipe import BaseRecipe

_KINDS: tuple[type[BaseRecipe], ...] = (
    ImageRecipe,
    SeriesRecipe,
    TextRecipe,
    TaughtTextRecipe,
    UnlabelledTextRecipe,
    LanguageModelRecipe,
    SyntheticRecipe,
)


def kind_of(content: dict[str, Any]) -> type[BaseRecipe]:
    """The kind of recipe that the content of a file is meant to be: of its architecture, and nearest by its sections.

    The nearest, so that a misspelt section is told as one, and not as the many keys in which another kind differs.

    Raises:
        RecipeError: Its architecture is missing or none that is trained.
    """
    kinds = {kind: get_args(kind.model_fields["architecture"].annotation) for kind in _KINDS}
    known = sorted({name for names in kinds.values() for name in names})
    architecture = content.get("architecture")
    if architecture is None:
        raise RecipeError(f"recipe key architecture is missing; expected {', '.join(known)}.")
    if architecture not in known:
        raise RecipeError(unknown("architecture", architecture, known))
    fitting = [kind for kind, names in kinds.items() if architecture in names]
    return min(fitting, key=lambda kind: len(content.keys() ^ kind.model_fields.keys()))
