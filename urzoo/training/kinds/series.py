"""Training on series of vectors, at the data's sampling rate or at rates drawn for each series."""

from functools import partial
from typing import Annotated, ClassVar, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from urzoo.data.schema import SequenceColumn, load_data_set
from urzoo.errors import RecipeError
from urzoo.evaluation.sequence_classification import resampled
from urzoo.evaluation.task import LARGEST_TIME_SCALE, load_task
from urzoo.schema import Number, Positive, Strict
from urzoo.training.batches import SequenceData
from urzoo.training.job import Job, Sources
from urzoo.training.recipe import SequenceClassifierRecipe, SequenceRecipe
from urzoo.training.rows import build_model, rows_job

TimeScale = Annotated[Number, Field(gt=0, le=LARGEST_TIME_SCALE)]


class SeriesModelRecipe(SequenceClassifierRecipe):
    """A classifier of series of vectors; `input_size` is the number of their channels."""

    input_size: Positive


class SeriesAugmentationRecipe(Strict):
    """Changes drawn for each series in each epoch.

    A series is resampled by a factor between `time_scale_min` and `time_scale_max` (uniform in its logarithm; 1.0
    for both leaves the sampling rate as it is), multiplied by the exponential of a normal number of deviation
    `amplitude_deviation`, and noise of deviation `noise_deviation` is added to each value.
    """

    time_scale_min: TimeScale
    time_scale_max: TimeScale
    amplitude_deviation: Annotated[Number, Field(ge=0)]
    noise_deviation: Annotated[Number, Field(ge=0)]

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.time_scale_min > self.time_scale_max:
            raise ValueError(
                f"augmentation.time_scale_min is {self.time_scale_min}, expected at most time_scale_max, which is "
                f"{self.time_scale_max}"
            )
        return self


class SeriesRecipe(SequenceRecipe):
    """Series of vectors. The held-out rows are scored at the data's sampling rate, and at its end at further ones.

    `further_time_scales` are steps for each step of the data, as in a task's `time_scale`; their scores are written
    into training.json and choose nothing.
    """

    problem: ClassVar[str] = "series-classification"
    validation_batch_size: ClassVar[int] = 64

    model: SeriesModelRecipe
    augmentation: SeriesAugmentationRecipe
    further_time_scales: list[TimeScale]

    def check(self) -> None:
        """Refuse another number of channels too, and a task that checkpoints of another are scored on."""
        super().check()
        if (trained_as := load_task(self.task).trained_as) is not None:
            raise RecipeError(f"task is {self.task!r}, which checkpoints of {trained_as} are scored on; name that.")
        columns = load_data_set(self.data.name).columns.values()
        channels = next(column.channels for column in columns if isinstance(column, SequenceColumn))
        if self.model.input_size != channels:
            raise RecipeError(f"model.input_size is {self.model.input_size}, but {self.data.name} has {channels}.")

    def prepare(self, sources: Sources) -> Job:
        """The series, at further sampling rates too, and the model."""
        training, validation = self.held_out(sources)
        held_out, labels = validation.sequences, validation.labels
        return rows_job(
            self,
            build_model(self, training.classes),
            (training, validation),
            sources,
            training=SequenceData(
                "inputs_embeds",
                training.sequences,
                training.labels,
                partial(augmented, recipe=self.augmentation, seed=self.run.seed),
                pool_batches=self.batches.pool_batches,
            ),
            validation=SequenceData("inputs_embeds", held_out, labels),
            further_validation={
                f"time_scale_{scale:g}": SequenceData(
                    "inputs_embeds", [resampled(one, scale) for one in held_out], labels
                )
                for scale in self.further_time_scales
            },
        )


Series = npt.NDArray[np.float32]


def augmented(series: Series, epoch: int, row: int, *, recipe: SeriesAugmentationRecipe, seed: int) -> Series:
    """A changed copy of a series `(time, channels)`; the seed, the epoch and its row alone decide what it gets."""
    # The 1 sets this stream apart from those of the order, which have the same seed and epoch.
    generator = np.random.default_rng((seed, epoch, 1, row))
    low, high = np.log(recipe.time_scale_min), np.log(recipe.time_scale_max)
    time_scale = float(np.exp(generator.uniform(low, high)))
    amplitude = np.exp(recipe.amplitude_deviation * generator.standard_normal())
    changed = resampled(series, time_scale) * amplitude
    if recipe.noise_deviation:
        changed = changed + recipe.noise_deviation * generator.standard_normal(changed.shape)
    copy: Series = changed.astype(np.float32)
    return copy
