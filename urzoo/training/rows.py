"""What the kinds whose data are rows of a data set have in common: the model, what is held out, the job."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel, set_seed

from urzoo.data import Split
from urzoo.models import URLSTMConfig, URLSTMForImageClassification, URLSTMForSequenceClassification
from urzoo.training.batches import Batch, BatchData
from urzoo.training.job import Job, Preprocessor
from urzoo.training.recipe import RowsRecipe
from urzoo.training.scores import classification_scores
from urzoo.zoo.schema import TrainingData

_CLASSES: dict[str, type[PreTrainedModel]] = {
    "URLSTMForImageClassification": URLSTMForImageClassification,
    "URLSTMForSequenceClassification": URLSTMForSequenceClassification,
}


def build_model(recipe: RowsRecipe, classes: Sequence[str], **fields: Any) -> PreTrainedModel:
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


def rows_job(
    recipe: RowsRecipe,
    model: PreTrainedModel,
    held_out: tuple[Split, Split],
    *,
    training: BatchData,
    validation: BatchData,
    preprocessor: Preprocessor | None = None,
    further_validation: Mapping[str, BatchData] | None = None,
    earlier_data: Sequence[TrainingData] = (),
    loss: Callable[[nn.Module, Batch, int], Tensor] | None = None,
) -> Job:
    """The job of a classifier of rows.

    Args:
        recipe: The recipe.
        model: To be trained.
        held_out: The rows to learn from, and those held out of them, as the data set has them.
        training: The first in the model's form, with further rows where there are any.
        validation: The second in the model's form.
        preprocessor: What is shipped with the model.
        further_validation: The second under other conditions, by the suffix of their scores' names.
        earlier_data: What else was learnt from.
        loss: As in `Job`.
    """
    learnt, aside = held_out
    scores = partial(classification_scores, data=validation, rows_at_a_time=recipe.validation_batch_size)

    def further_scores(model: PreTrainedModel) -> dict[str, float]:
        return {
            f"{score}_{name}": value
            for name, data in (further_validation or {}).items()
            for score, value in classification_scores(model, data, rows_at_a_time=recipe.validation_batch_size).items()
        }

    rows = {"train": learnt.rows, "validation": aside.rows}
    own = TrainingData.of(learnt.data_set, learnt.split, learnt.digest, **rows)
    return Job(
        model=model,
        training=training,
        scores=scores,
        data=[own, *earlier_data],
        digest=learnt.digest,
        size=f"{learnt.rows} + {aside.rows} rows",
        preprocessor=preprocessor,
        loss=loss,
        further_scores=further_scores,
    )
