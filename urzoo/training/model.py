"""From a recipe to the model and processor it describes."""

from collections.abc import Sequence

from transformers import PreTrainedModel

from urzoo.models import PixelSequenceImageProcessor, URLSTMConfig, URLSTMForImageClassification, pixel_permutation
from urzoo.training.recipe import Recipe


def build_processor(recipe: Recipe) -> PixelSequenceImageProcessor:
    """The processor that the checkpoint ships, with the permutation itself in it."""
    pixels = recipe.processor
    seed = pixels.permutation_seed
    return PixelSequenceImageProcessor(
        size={"height": pixels.height, "width": pixels.width},
        do_grayscale=pixels.do_grayscale,
        image_mean=pixels.image_mean,
        image_std=pixels.image_std,
        pixel_order=None if seed is None else pixel_permutation(pixels.height * pixels.width, seed),
    )


def build_model(recipe: Recipe, classes: Sequence[str]) -> PreTrainedModel:
    """The model with freshly drawn weights; set the seed before.

    Args:
        recipe: Its `architecture` and `model` decide.
        classes: The names of the classes in the order of their numbers.
    """
    config = URLSTMConfig(
        **recipe.model.model_dump(),
        id2label=dict(enumerate(classes)),
        label2id={name: number for number, name in enumerate(classes)},
    )
    return {"URLSTMForImageClassification": URLSTMForImageClassification}[recipe.architecture](config)
