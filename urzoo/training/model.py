"""From a recipe to the model it describes, and what the trainer needs besides."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from transformers import PreTrainedModel, set_seed

from urzoo.models import URLSTMConfig, URLSTMForImageClassification, URLSTMForSequenceClassification
from urzoo.training.batches import BatchData
from urzoo.training.recipe import Recipe
from urzoo.zoo.schema import InitialCheckpoint, TrainingData

_CLASSES: dict[str, type[PreTrainedModel]] = {
    "URLSTMForImageClassification": URLSTMForImageClassification,
    "URLSTMForSequenceClassification": URLSTMForSequenceClassification,
}


class Preprocessor(Protocol):
    """What makes the model's inputs and is shipped with it: an image processor or a tokenizer."""

    def save_pretrained(self, save_directory: Path) -> Any:
        """Write its files into a folder."""
        ...


@dataclass(frozen=True)
class Prepared:
    """What the trainer needs for a recipe.

    Attributes:
        model: Freshly drawn, or with the weights to begin with.
        training: The rows to learn from.
        validation: The rows held out of them.
        preprocessor: What is shipped with the model; None where it takes the data as they are.
        further_validation: The held-out rows under other conditions, by the suffix of their scores' names.
        initialised_from: Where the weights to begin with came from, if they were not drawn.
        taught_by: What labelled further rows, if the recipe names a teacher.
        earlier_data: What the weights to begin with had learnt from, and the rows that were labelled.
    """

    model: PreTrainedModel
    training: BatchData
    validation: BatchData
    preprocessor: Preprocessor | None = None
    further_validation: Mapping[str, BatchData] = field(default_factory=dict)
    initialised_from: InitialCheckpoint | None = None
    taught_by: InitialCheckpoint | None = None
    earlier_data: tuple[TrainingData, ...] = ()


def build_model(recipe: Recipe, classes: Sequence[str], **fields: Any) -> PreTrainedModel:
    """The model with weights drawn by the recipe's seed.

    Args:
        recipe: Its `architecture`, `model` and seed decide.
        classes: The names of the classes in the order of their numbers.
        fields: Fields of the configuration that follow from the data rather than the recipe.
    """
    config = URLSTMConfig(
        **recipe.model.model_dump(),
        **fields,
        id2label=dict(enumerate(classes)),
        label2id={name: number for number, name in enumerate(classes)},
    )
    set_seed(recipe.run.seed)
    return _CLASSES[recipe.architecture](config)
