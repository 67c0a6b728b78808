"""Training on series of vectors, at the data's sampling rate or at rates drawn anew for each series."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from urzoo.data import Split
from urzoo.data.schema import SequenceColumn, load_data_set
from urzoo.errors import RecipeError
from urzoo.evaluation.sequence_classification import resampled
from urzoo.evaluation.task import Task
from urzoo.training.batches import Batch, BatchData, EpochOrder, LengthOrder, Rows, padded
from urzoo.training.model import Prepared, build_model
from urzoo.training.recipe import SeriesAugmentationRecipe, SeriesRecipe

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


def check_series_task(recipe: SeriesRecipe, task: Task) -> None:
    """Refuse a recipe whose model the task would not admit.

    Raises:
        RecipeError: The task is none of series, is one that checkpoints of another task are evaluated on, or the
            data have another number of channels.
    """
    if task.problem != "series-classification":
        raise RecipeError(f"task is {task.name!r}, a matter of {task.problem}; expected one of series-classification.")
    if task.trained_as is not None:
        raise RecipeError(f"task is {task.name!r}, which checkpoints of {task.trained_as} are scored on; name that.")
    columns = load_data_set(recipe.data.name).columns.values()
    channels = next(column.channels for column in columns if isinstance(column, SequenceColumn))
    if recipe.model.input_size != channels:
        raise RecipeError(f"model.input_size is {recipe.model.input_size}, but {recipe.data.name} has {channels}.")


def prepare_series(recipe: SeriesRecipe, training: Split, validation: Split) -> Prepared:
    """What the trainer needs for a recipe of series."""
    held_out = validation.sequences
    return Prepared(
        model=build_model(recipe, training.classes),
        training=SeriesData(
            training.sequences,
            training.labels,
            SeriesAugmentation(recipe.augmentation, seed=recipe.run.seed),
            pool_batches=recipe.batches.pool_batches,
        ),
        validation=SeriesData(held_out, validation.labels),
        further_validation={
            f"time_scale_{scale:g}": SeriesData([resampled(one, scale) for one in held_out], validation.labels)
            for scale in recipe.further_time_scales
        },
    )
