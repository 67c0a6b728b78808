"""Training on images, which a processor makes pixel sequences of."""

from typing import Annotated, Any, ClassVar, Literal, Protocol, Self

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from pydantic import Field, model_validator

from urzoo.data import hold_out
from urzoo.errors import RecipeError
from urzoo.models import PixelSequenceImageProcessor, pixel_permutation
from urzoo.schema import Number, Strict
from urzoo.training.batches import Batch, BatchData, Rows
from urzoo.training.job import Job, Sources
from urzoo.training.recipe import (
    ClassifierRecipe,
    Count,
    MayBeLeftOut,
    Poolings,
    Positive,
    PositiveNumber,
    RowsRecipe,
    Seed,
)
from urzoo.training.rows import build_model, rows_job


class ImageModelRecipe(ClassifierRecipe):
    """A classifier of pixels; `input_size` is the number of their channels.

    `pooling` is as in classifiers of sequences. It may be left out, as in recipes that are older than it; their
    digests stand, and they take the outputs at the last step.
    """

    input_size: Positive
    pooling: MayBeLeftOut[Poolings] = None


class ProcessorRecipe(Strict):
    """How images become sequences: one pixel a step, in raster order or in one fixed permutation.

    Pixels are divided by 255 before `image_mean` is subtracted and `image_std` divided by, one number per channel.
    """

    height: Positive
    width: Positive
    do_grayscale: bool
    image_mean: Annotated[list[Number], Field(min_length=1, max_length=3)]
    image_std: Annotated[list[PositiveNumber], Field(min_length=1, max_length=3)]
    permutation_seed: Seed | None


class ImageAugmentationRecipe(Strict):
    """Changes drawn anew for each image in each epoch: shifts of at most so many pixels each way, and mirroring.

    With `rotate_degrees` an image is turned about its centre by at most so many degrees either way, with `scale_change`
    its size changes by at most so large a share, with `erase_pixels` a square of so many pixels a side becomes black.
    Each may be left out, as in recipes that are older than it, whose digests stand.
    """

    shift_pixels: Count
    flip_horizontal: bool
    rotate_degrees: MayBeLeftOut[Annotated[Number, Field(gt=0, le=180)]] = None
    scale_change: MayBeLeftOut[Annotated[Number, Field(gt=0, lt=1)]] = None
    erase_pixels: MayBeLeftOut[Positive] = None


class ImageRecipe(RowsRecipe):
    """Images, read as sequences of pixels."""

    validation_batch_size: ClassVar[int] = 256

    architecture: Literal["URLSTMForImageClassification"]
    model: ImageModelRecipe
    processor: ProcessorRecipe
    augmentation: ImageAugmentationRecipe

    @model_validator(mode="after")
    def _parts_agree(self) -> Self:
        channels = 1 if self.processor.do_grayscale else 3
        if self.model.input_size != channels:
            raise ValueError(f"model.input_size must be {channels}, one input per channel of a pixel")
        for key in ("image_mean", "image_std"):
            values = getattr(self.processor, key)
            if len(values) != channels:
                raise ValueError(f"processor.{key} has {len(values)} numbers, expected {channels}, one per channel")
        side, smallest = self.augmentation.erase_pixels, min(self.processor.height, self.processor.width)
        if side is not None and side >= smallest:
            raise ValueError(f"augmentation.erase_pixels is {side}, expected less than the {smallest} pixels of a side")
        return self

    def check(self) -> None:
        """Refuse other pixels than the task's, or another order.

        Raises:
            RecipeError: The recipe and the task disagree; the message names the key.
        """
        task = self.checked_task()
        needs = task.requires
        if needs is None:
            raise RecipeError(f"task is {task.name!r}, a matter of {task.problem}; {self.architecture} reads images.")
        for key, value, expected in (
            ("processor.permutation_seed", self.processor.permutation_seed, needs.permutation_seed),
            ("model.input_size", self.model.input_size, needs.channels),
            ("processor.height * processor.width", self.processor.height * self.processor.width, needs.steps),
        ):
            if value != expected:
                raise RecipeError(f"{key} is {value}, but task {task.name} requires {expected}.")

    def prepare(self, sources: Sources) -> Job:
        """The images, a processor for them, and the model."""
        split = sources.split(self.data.name, self.data.split)
        training, validation = hold_out(split, self.data.validation_rows, self.data.validation_seed)
        processor = build_processor(self.processor)
        augmentation = ImageAugmentation(self.augmentation, rows=training.rows, seed=self.run.seed)
        return rows_job(
            self,
            build_model(self, training.classes),
            (training, validation),
            training=PixelData(training.images, training.labels, processor, augmentation),
            validation=PixelData(validation.images, validation.labels, processor),
            preprocessor=processor,
        )


Images = npt.NDArray[np.uint8]


class ImageProcessor(Protocol):
    """What is asked of an image processor: uint8 images `(batch, height, width[, channels])` to model inputs."""

    def __call__(self, images: Images, *, return_tensors: str) -> Any:
        """The inputs, among them `pixel_values` of shape `(batch, time, channels)`."""
        ...


class ImageAugmentation:
    """Random changes of uint8 images; what a sample gets depends on the seed, the epoch and its row.

    In this order: mirroring; turning and scaling about the centre, between pixels by bilinear interpolation; shifts by
    up to `shift_pixels` whole pixels in each direction; a black square of `erase_pixels` whose centre lies anywhere in
    the image (cutout, DeVries and Taylor 2017). What comes in from outside the image is black.
    """

    def __init__(self, recipe: ImageAugmentationRecipe, *, rows: int, seed: int) -> None:
        self.shift_pixels = recipe.shift_pixels
        self.flip_horizontal = recipe.flip_horizontal
        self.rotate_degrees = recipe.rotate_degrees or 0.0
        self.scale_change = recipe.scale_change or 0.0
        self.turns = bool(self.rotate_degrees or self.scale_change)
        self.erase_pixels = recipe.erase_pixels or 0
        self.rows = rows
        self.seed = seed
        self._epoch = -1
        self._shifts: npt.NDArray[np.int64] = np.zeros((0, 2), np.int64)
        self._flips: npt.NDArray[np.bool_] = np.zeros(0, np.bool_)
        self._maps: torch.Tensor = torch.zeros(0, 2, 3)
        self._centres: npt.NDArray[np.float64] = np.zeros((0, 2))

    def __call__(self, images: Images, *, epoch: int, rows: npt.NDArray[np.int64]) -> Images:
        """Changed copies of `images`, `(batch, height, width[, channels])`, which are the given rows of the data."""
        if not (self.shift_pixels or self.flip_horizontal or self.turns or self.erase_pixels):
            return images
        self._draw(epoch)
        if self.flip_horizontal:
            flips = self._flips[rows].reshape(-1, *[1] * (images.ndim - 1))
            images = np.where(flips, images[:, :, ::-1], images)
        if self.turns:
            images = mapped(images, self._maps[torch.from_numpy(rows)])
        if self.shift_pixels:
            images = self._shifted(images, self._shifts[rows])
        if self.erase_pixels:
            images = erased(images, self._centres[rows], self.erase_pixels)
        return images

    def _draw(self, epoch: int) -> None:
        """Draw for all rows at once, so that a sample's draw does not depend on the batch it is in."""
        if epoch == self._epoch:
            return
        # The 1 sets this stream apart from that of the order, which has the same seed and epoch.
        generator = np.random.default_rng((self.seed, epoch, 1))
        self._shifts = generator.integers(0, 2 * self.shift_pixels, size=(self.rows, 2), endpoint=True)
        self._flips = generator.random(self.rows) < 0.5
        if self.turns:
            self._maps = self._draw_maps(epoch)
        if self.erase_pixels:
            self._centres = np.random.default_rng((self.seed, epoch, 3)).random((self.rows, 2))
        self._epoch = epoch

    def _draw_maps(self, epoch: int) -> torch.Tensor:
        # A stream of its own, so that recipes without these keep their shifts.
        generator = np.random.default_rng((self.seed, epoch, 2))
        angles = np.deg2rad(generator.uniform(-self.rotate_degrees, self.rotate_degrees, self.rows))
        # A map leads from a place in the new image to one in the old: an image grows where the map shrinks.
        scales = 1 / (1 + generator.uniform(-self.scale_change, self.scale_change, self.rows))
        cosines, sines, zeros = scales * np.cos(angles), scales * np.sin(angles), np.zeros(self.rows)
        maps = np.stack([cosines, -sines, zeros, sines, cosines, zeros], axis=1).reshape(-1, 2, 3)
        return torch.from_numpy(maps.astype(np.float32))

    def _shifted(self, images: Images, shifts: npt.NDArray[np.int64]) -> Images:
        margin = self.shift_pixels
        batch, height, width = images.shape[:3]
        padding = [(0, 0), (margin, margin), (margin, margin)] + [(0, 0)] * (images.ndim - 3)
        padded = np.pad(images, padding)
        lines = shifts[:, 0, None] + np.arange(height)
        columns = shifts[:, 1, None] + np.arange(width)
        shifted: Images = padded[np.arange(batch)[:, None, None], lines[:, :, None], columns[:, None, :]]
        return shifted


def erased(images: Images, centres: npt.NDArray[np.float64], side: int) -> Images:
    """Copies of images with a black square in each, cut off where it reaches over the edge.

    Args:
        images: uint8, `(batch, height, width[, channels])`.
        centres: Where the squares' centres lie, `(batch, 2)`, from 0 to 1 over the height and over the width.
        side: Of the square, in pixels.
    """
    inside = []
    for axis, size in enumerate(images.shape[1:3]):
        first = np.floor(centres[:, axis, None] * size).astype(np.int64) - side // 2
        inside.append((np.arange(size) >= first) & (np.arange(size) < first + side))
    square = inside[0][:, :, None] & inside[1][:, None, :]
    result: Images = np.where(square.reshape(square.shape + (1,) * (images.ndim - 3)), np.uint8(0), images)
    return result


def mapped(images: Images, maps: torch.Tensor) -> Images:
    """Images through affine maps, black outside.

    Args:
        images: uint8, `(batch, height, width[, channels])`.
        maps: float32, `(batch, 2, 3)`, from places `(x, y)` of the result to those of `images`, seen from the centre.
            Turns and scales are those of a plane, whatever the width and the height.
    """
    height, width = images.shape[1:3]
    # torch counts x in half widths and y in half heights.
    maps = maps * torch.tensor([[1.0, height / width, 1.0], [width / height, 1.0, 1.0]])
    pixels = torch.from_numpy(np.ascontiguousarray(images)).float()
    pixels = pixels.unsqueeze(1) if images.ndim == 3 else pixels.movedim(-1, 1)
    places = F.affine_grid(maps, list(pixels.shape), align_corners=False)
    moved = F.grid_sample(pixels, places, mode="bilinear", padding_mode="zeros", align_corners=False)
    moved = moved.round().clamp(0, 255).to(torch.uint8)
    result: Images = (moved.squeeze(1) if images.ndim == 3 else moved.movedim(1, -1)).numpy()
    return result


class PixelData(BatchData):
    """Decoded images with their classes, served a batch at a time through the processor's whole-array path.

    Args:
        images: uint8, `(rows, height, width[, channels])`.
        labels: int64, `(rows,)`.
        processor: Makes pixel sequences of a batch of images.
        augmentation: Applied to the images of a batch before the processor; none for validation.
    """

    def __init__(
        self,
        images: Images,
        labels: npt.NDArray[np.int64],
        processor: ImageProcessor,
        augmentation: ImageAugmentation | None = None,
    ) -> None:
        self.images = images
        self.labels = torch.from_numpy(labels)
        self.processor = processor
        self.augmentation = augmentation

    def __len__(self) -> int:
        """The number of images."""
        return len(self.images)

    def batch(self, rows: Rows, *, epoch: int) -> Batch:
        """The pixels `(batch, time, channels)` and labels of some images."""
        images = self.images[rows]
        if self.augmentation is not None:
            images = self.augmentation(images, epoch=epoch, rows=rows)
        inputs = self.processor(images, return_tensors="pt")
        return {"pixel_values": inputs["pixel_values"], "labels": self.labels[torch.from_numpy(rows)]}


def build_processor(pixels: ProcessorRecipe) -> PixelSequenceImageProcessor:
    """The processor that the checkpoint ships, with the permutation itself in it."""
    seed = pixels.permutation_seed
    return PixelSequenceImageProcessor(
        size={"height": pixels.height, "width": pixels.width},
        do_grayscale=pixels.do_grayscale,
        image_mean=pixels.image_mean,
        image_std=pixels.image_std,
        pixel_order=None if seed is None else pixel_permutation(pixels.height * pixels.width, seed),
    )
