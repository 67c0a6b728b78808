"""Training on series of vectors, at the data's sampling rate or at rates drawn for each series."""

from collections.abc import Sequence
from typing import Annotated, ClassVar, Self

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field, model_validator

from urzoo.data import hold_out
from urzoo.data.schema import SequenceColumn, load_data_set
from urzoo.errors import RecipeError
from urzoo.evaluation.sequence_classification import resampled
from urzoo.schema import Number, Strict
from urzoo.training.batches import Batch, BatchData, EpochOrder, LengthOrder, Rows, padded
from urzoo.training.job import Job, Sources
from urzoo.training.recipe import Positive, PositiveNumber, SequenceClassifierRecipe, SequenceRecipe
from urzoo.training.rows import build_model, rows_job


class SeriesModelRecipe(SequenceClassifierRecipe):
    """A classifier of series of vectors; `input_size` is the number of their channels."""

    input_size: Positive


class SeriesAugmentationRecipe(Strict):
    """Changes drawn for each series in each epoch.

    A series is resampled by a factor between `time_scale_min` and `time_scale_max` (uniform in its logarithm; 1.0
    for both leaves the sampling rate as it is), multiplied by the exponential of a normal number of deviation
    `amplitude_deviation`, and noise of deviation `noise_deviation` is added to each value.
    """

    time_scale_min: PositiveNumber
    time_scale_max: PositiveNumber
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

    validation_batch_size: ClassVar[int] = 64

    model: SeriesModelRecipe
    augmentation: SeriesAugmentationRecipe
    further_time_scales: list[PositiveNumber]

    def check(self) -> None:
        """Refuse a model that does not fit the task.

        Raises:
            RecipeError: The task is none of series, is one that checkpoints of another task are evaluated on, or the
                data have another number of channels.
        """
        task = self.checked_task()
        if task.problem != "series-classification":
            raise RecipeError(
                f"task is {task.name!r}, a matter of {task.problem}; expected one of series-classification."
            )
        if task.trained_as is not None:
            raise RecipeError(
                f"task is {task.name!r}, which checkpoints of {task.trained_as} are scored on; name that."
            )
        columns = load_data_set(self.data.name).columns.values()
        channels = next(column.channels for column in columns if isinstance(column, SequenceColumn))
        if self.model.input_size != channels:
            raise RecipeError(f"model.input_size is {self.model.input_size}, but {self.data.name} has {channels}.")

    def prepare(self, sources: Sources) -> Job:
        """The series, at further sampling rates too, and the model."""
        split = sources.split(self.data.name, self.data.split)
        training, validation = hold_out(split, self.data.validation_rows, self.data.validation_seed)
        held_out = validation.sequences
        return rows_job(
            self,
            build_model(self, training.classes),
            (training, validation),
            training=SeriesData(
                training.sequences,
                training.labels,
                SeriesAugmentation(self.augmentation, seed=self.run.seed),
                pool_batches=self.batches.pool_batches,
            ),
            validation=SeriesData(held_out, validation.labels),
            further_validation={
                f"time_scale_{scale:g}": SeriesData([resampled(one, scale) for one in held_out], validation.labels)
                for scale in self.further_time_scales
            },
        )


Series = npt.NDArray[np.float32]


class SeriesAugmentation:
    """Random changes of a series; what a series gets depends on the seed, the epoch and its row alone."""

    def __init__(self, recipe: SeriesAugmentationRecipe, *, seed: int) -> None:
        self.recipe = recipe
        self.seed = seed

    def __call__(self, series: Series, *, epoch: int, row: int) -> Series:
        """A changed copy of `series`, `(time, channels)`, which is the given row of the data."""
        recipe = self.recipe
        # The 1 sets this stream apart from those of the order, which have the same seed and epoch.
        generator = np.random.default_rng((self.seed, epoch, 1, row))
        low, high = np.log(recipe.time_scale_min), np.log(recipe.time_scale_max)
        time_scale = float(np.exp(generator.uniform(low, high)))
        amplitude = np.exp(recipe.amplitude_deviation * generator.standard_normal())
        changed = resampled(series, time_scale) * amplitude
        if recipe.noise_deviation:
            changed = changed + recipe.noise_deviation * generator.standard_normal(changed.shape)
        copy: Series = changed.astype(np.float32)
        return copy


class SeriesData(BatchData):
    """Series of vectors with their classes, padded on the right and masked.

    Args:
        series: float32, each `(time, channels)`.
        labels: int64, `(rows,)`.
        augmentation: Applied to each series; none for validation.
        pool_batches: See `LengthOrder`; of the lengths before augmentation.
    """

    def __init__(
        self,
        series: Sequence[Series],
        labels: npt.NDArray[np.int64],
        augmentation: SeriesAugmentation | None = None,
        *,
        pool_batches: int = 1,
    ) -> None:
        self.series = series
        self.labels = torch.from_numpy(labels)
        self.augmentation = augmentation
        self.pool_batches = pool_batches

    def __len__(self) -> int:
        """The number of series."""
        return len(self.series)

    def order(self, *, batch_size: int, seed: int) -> EpochOrder:
        """Series of similar length together."""
        lengths = np.array([len(series) for series in self.series])
        return LengthOrder(lengths, batch_size=batch_size, pool_batches=self.pool_batches, seed=seed)

    def batch(self, rows: Rows, *, epoch: int) -> Batch:
        """The values `(batch, time, channels)`, the mask `(batch, time)` and the labels of some series."""
        series = [self.series[row] for row in rows.tolist()]
        if self.augmentation is not None:
            pairs = zip(series, rows.tolist(), strict=True)
            series = [self.augmentation(one, epoch=epoch, row=row) for one, row in pairs]
        inputs, mask = padded([torch.from_numpy(one) for one in series])
        return {"inputs_embeds": inputs, "attention_mask": mask, "labels": self.labels[torch.from_numpy(rows)]}
