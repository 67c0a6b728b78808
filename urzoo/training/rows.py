"""What the kinds whose data are rows of a data set have in common: the model, what is held out, the job."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from transformers import PreTrainedModel, set_seed

from urzoo import models
from urzoo.data import Split
from urzoo.errors import DataError
from urzoo.training.batches import BatchData
from urzoo.training.job import Job, Sources
from urzoo.training.recipe import RowsRecipe
from urzoo.training.scores import classification_scores
from urzoo.zoo.schema import TrainingData


def build_model(recipe: RowsRecipe, classes: Sequence[str], **fields: Any) -> PreTrainedModel:
    """The model of a recipe with weights drawn by its seed; `fields` of the configuration follow from the data."""
    config = models.URLSTMConfig(
        **recipe.model.model_dump(),
        **fields,
        id2label=dict(enumerate(classes)),
        label2id={name: number for number, name in enumerate(classes)},
    )
    set_seed(recipe.run.seed)
    model: PreTrainedModel = getattr(models, recipe.architecture)(config)
    return model


def rows_job(
    recipe: RowsRecipe,
    model: PreTrainedModel,
    held_out: tuple[Split, Split],
    sources: Sources,
    *,
    training: BatchData,
    validation: BatchData,
    further_validation: Mapping[str, BatchData] | None = None,
    earlier_data: Sequence[TrainingData] = (),
) -> Job:
    """The job of a classifier of rows, which ships nothing beside the model and learns by the model's own loss.

    Args:
        recipe: Of the run.
        model: To be trained.
        held_out: The rows to learn from, and those held out of them, as the data set has them.
        sources: From which these were read first.
        training: The first in the model's form, with further rows where there are any.
        validation: The second in the model's form.
        further_validation: The second under other conditions, by the suffix of their scores' names.
        earlier_data: What else was learnt from.

    Raises:
        DataError: There are fewer rows than a batch has.
    """
    learnt, aside = held_out
    if len(training) < recipe.run.batch_size:
        raise DataError(
            f"run.batch_size is {recipe.run.batch_size}, but only {len(training)} rows are left for training."
        )
    scores = partial(classification_scores, data=validation, rows_at_a_time=recipe.validation_batch_size)

    def further_scores(model: PreTrainedModel) -> dict[str, float]:
        return {
            f"{score}_{name}": value
            for name, data in (further_validation or {}).items()
            for score, value in classification_scores(model, data, rows_at_a_time=recipe.validation_batch_size).items()
        }

    own = TrainingData.of(
        learnt.data_set,
        learnt.split,
        learnt.digest,
        train=learnt.rows,
        validation=aside.rows,
        order=sources.orders[0],
    )
    return Job(
        model=model,
        training=training,
        scores=scores,
        data=[own, *earlier_data],
        digest=learnt.digest,
        size=f"{learnt.rows} + {aside.rows} rows",
        further_scores=further_scores,
    )
