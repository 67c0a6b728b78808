"""Training on images, which a processor makes pixel sequences of."""

from dataclasses import replace
from typing import Annotated, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from urzoo.errors import RecipeError
from urzoo.evaluation.task import load_task
from urzoo.models import PixelSequenceImageProcessor, pixel_permutation
from urzoo.schema import Number, Positive, Seed, Strict
from urzoo.training.augmentation import ImageAugmentation, ImageAugmentationRecipe, Images, mixed, mixed_labels
from urzoo.training.batches import Batch, BatchData, Rows
from urzoo.training.job import Job, Sources
from urzoo.training.recipe import ClassifierRecipe, MayBeLeftOut, Poolings, PositiveNumber, RowsRecipe
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


class ImageRecipe(RowsRecipe):
    """Images, read as sequences of pixels."""

    problem: ClassVar[str] = "image-classification"
    validation_batch_size: ClassVar[int] = 256

    architecture: Literal["URLSTMForImageClassification"]
    model: ImageModelRecipe
    processor: ProcessorRecipe
    augmentation: ImageAugmentationRecipe

    @model_validator(mode="after")
    def _parts_agree(self) -> Self:
        channels = 1 if self.processor.do_grayscale else 3
        if self.model.input_size != channels:
            raise ValueError(
                f"model.input_size is {self.model.input_size}, expected {channels}, one per channel of a pixel"
            )
        for key in ("image_mean", "image_std"):
            values = getattr(self.processor, key)
            if len(values) != channels:
                raise ValueError(f"processor.{key} has {len(values)} numbers, expected {channels}, one per channel")
        changes, side = self.augmentation, min(self.processor.height, self.processor.width)
        for key, pixels in (
            ("shift_pixels", changes.shift_pixels),
            ("erase_pixels", changes.erase_pixels),
            ("elastic.sigma_pixels", None if changes.elastic is None else changes.elastic.sigma_pixels),
        ):
            if pixels is not None and pixels >= side:
                raise ValueError(f"augmentation.{key} is {pixels}, expected less than the {side} pixels of a side")
        return self

    def check(self) -> None:
        """Refuse other pixels than the task's too, or another order."""
        super().check()
        needs = load_task(self.task).requires
        assert needs is not None, "tasks of images have it"
        for key, value, expected in (
            ("processor.permutation_seed", self.processor.permutation_seed, needs.permutation_seed),
            ("model.input_size", self.model.input_size, needs.channels),
            ("processor.height * processor.width", self.processor.height * self.processor.width, needs.steps),
        ):
            if value != expected:
                told, needed = ("null" if one is None else one for one in (value, expected))
                raise RecipeError(f"{key} is {told}, but task {self.task} requires {needed}.")

    def prepare(self, sources: Sources) -> Job:
        """The images, a processor for them, and the model."""
        training, validation = self.held_out(sources)
        processor = build_processor(self.processor)
        augmentation = ImageAugmentation(self.augmentation, rows=training.rows, seed=self.run.seed)
        job = rows_job(
            self,
            build_model(self, training.classes),
            (training, validation),
            sources,
            training=PixelData(training.images, training.labels, processor, augmentation, len(training.classes)),
            validation=PixelData(validation.images, validation.labels, processor),
        )
        return replace(job, preprocessor=processor, loss=mixed_loss if self.augmentation.cutmix else None)


def mixed_loss(model: nn.Module, batch: Batch, step: int) -> Tensor:  # noqa: ARG001 - a job's loss
    """The cross-entropy, in nats an image, of labels that are weights of the classes, `(batch, classes)`.

    The weighted mean of the cross-entropies of the two labels of a mixed image; of an image that is not mixed, what the
    model itself gives. Its least value is the entropy of the labels, not 0.
    """
    logits: Tensor = model(pixel_values=batch["pixel_values"]).logits
    return F.cross_entropy(logits.float(), batch["labels"])


class PixelData(BatchData):
    """Decoded images with their classes, served a batch at a time through the processor's whole-array path.

    Args:
        images: uint8, `(rows, height, width[, channels])`.
        labels: int64, `(rows,)`.
        processor: Makes pixel sequences of a batch of images.
        augmentation: Applied to the images of a batch before the processor; none for validation. With CutMix, labels
            become weights of the classes.
        classes: How many there are, for these weights.
    """

    def __init__(
        self,
        images: Images,
        labels: npt.NDArray[np.int64],
        processor: PixelSequenceImageProcessor,
        augmentation: ImageAugmentation | None = None,
        classes: int = 0,
    ) -> None:
        self.images, self.labels = images, torch.from_numpy(labels)
        self.processor, self.augmentation, self.classes = processor, augmentation, classes

    def batch(self, rows: Rows, *, epoch: int) -> Batch:
        """The pixels `(batch, time, channels)` and labels of some images."""
        images, labels = self.images[rows], self.labels[torch.from_numpy(rows)]
        if self.augmentation is not None:
            images = self.augmentation(images, epoch=epoch, rows=rows)
            if self.augmentation.recipe.cutmix:
                images, labels = self._mixed(images, labels, rows, epoch=epoch)
        inputs = self.processor(images, return_tensors="pt")
        return {"pixel_values": inputs["pixel_values"], "labels": labels}

    def _mixed(self, images: Images, labels: Tensor, rows: Rows, *, epoch: int) -> tuple[Images, Tensor]:
        """With rectangles of other rows, which are changed by their own draws first."""
        assert self.augmentation is not None
        partners, centres, sides = self.augmentation.partners(epoch=epoch, rows=rows)
        others, chosen = images.copy(), sides > 0
        others[chosen] = self.augmentation(self.images[partners[chosen]], epoch=epoch, rows=partners[chosen])
        images, shares = mixed(images, others, centres, sides)
        return images, mixed_labels(labels, self.labels[torch.from_numpy(partners)], shares, self.classes)


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
