"""Training batches of pixel sequences, made whole arrays at a time, and an order of samples without hidden state.

The order of an epoch and its augmentation are functions of the seed, the epoch and the sample alone. A resumed run
therefore needs no generator state, and a run on several processes sees the same samples as one on a single process.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from urzoo.training.recipe import AugmentationRecipe

Images = npt.NDArray[np.uint8]
Sample = tuple[int, int]


class ImageProcessor(Protocol):
    """What is asked of an image processor: uint8 images `(batch, height, width[, channels])` to model inputs."""

    def __call__(self, images: Images, *, return_tensors: str) -> Any:
        """The inputs, among them `pixel_values` of shape `(batch, time, channels)`."""
        ...


class EpochOrder(Sampler[Sample]):
    """Samples of one epoch in random order, as pairs (epoch, row); whoever trains sets `epoch` before iterating.

    An epoch is a whole number of batches, so that each step is a mean over the same number of samples: the rest of
    the rows, other ones in each epoch, is left out.

    Args:
        rows: Number of rows of the data.
        batch_size: That of all processes together.
        seed: With the epoch, it decides the order.
    """

    def __init__(self, rows: int, *, batch_size: int, seed: int) -> None:
        self.rows = rows
        self.samples = rows // batch_size * batch_size
        self.seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        """The number of samples of an epoch."""
        return self.samples

    def __iter__(self) -> Iterator[Sample]:
        """The samples of the current epoch."""
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.rows)[: self.samples]
        return zip([self.epoch] * self.samples, order.tolist(), strict=True)


class Augmentation:
    """Random shifts and mirroring of uint8 images; what a sample gets depends on the seed, the epoch and its row.

    Shifts move the image over a black ground by up to `shift_pixels` in each direction.
    """

    def __init__(self, recipe: AugmentationRecipe, *, rows: int, seed: int) -> None:
        self.shift_pixels = recipe.shift_pixels
        self.flip_horizontal = recipe.flip_horizontal
        self.rows = rows
        self.seed = seed
        self._epoch = -1
        self._shifts: npt.NDArray[np.int64] = np.zeros((0, 2), np.int64)
        self._flips: npt.NDArray[np.bool_] = np.zeros(0, np.bool_)

    def __call__(self, images: Images, *, epoch: int, rows: npt.NDArray[np.int64]) -> Images:
        """Changed copies of `images`, `(batch, height, width[, channels])`, which are the given rows of the data."""
        if not (self.shift_pixels or self.flip_horizontal):
            return images
        self._draw(epoch)
        if self.flip_horizontal:
            flips = self._flips[rows].reshape(-1, *[1] * (images.ndim - 1))
            images = np.where(flips, images[:, :, ::-1], images)
        if self.shift_pixels:
            images = self._shifted(images, self._shifts[rows])
        return images

    def _draw(self, epoch: int) -> None:
        """Draw for all rows at once, so that a sample's draw does not depend on the batch it is in."""
        if epoch == self._epoch:
            return
        # The 1 sets this stream apart from that of the order, which has the same seed and epoch.
        generator = np.random.default_rng((self.seed, epoch, 1))
        self._shifts = generator.integers(0, 2 * self.shift_pixels, size=(self.rows, 2), endpoint=True)
        self._flips = generator.random(self.rows) < 0.5
        self._epoch = epoch

    def _shifted(self, images: Images, shifts: npt.NDArray[np.int64]) -> Images:
        margin = self.shift_pixels
        batch, height, width = images.shape[:3]
        padding = [(0, 0), (margin, margin), (margin, margin)] + [(0, 0)] * (images.ndim - 3)
        padded = np.pad(images, padding)
        lines = shifts[:, 0, None] + np.arange(height)
        columns = shifts[:, 1, None] + np.arange(width)
        shifted: Images = padded[np.arange(batch)[:, None, None], lines[:, :, None], columns[:, None, :]]
        return shifted


class PixelData(Dataset[dict[str, Tensor]]):
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
        augmentation: Augmentation | None = None,
    ) -> None:
        self.images = images
        self.labels = torch.from_numpy(labels)
        self.processor = processor
        self.augmentation = augmentation

    def __len__(self) -> int:
        """The number of images."""
        return len(self.images)

    def __getitem__(self, sample: int | Sample) -> dict[str, Tensor]:
        """One sample, as a batch of one."""
        return self.__getitems__([sample])

    def __getitems__(self, samples: Sequence[int | Sample]) -> dict[str, Tensor]:
        """A batch; torch's loader calls this with all samples of a batch where it exists."""
        pairs = [sample if isinstance(sample, tuple) else (0, sample) for sample in samples]
        rows = np.array([row for _, row in pairs], np.int64)
        images = self.images[rows]
        if self.augmentation is not None:
            images = self.augmentation(images, epoch=pairs[0][0], rows=rows)
        inputs = self.processor(images, return_tensors="pt")
        return {"pixel_values": inputs["pixel_values"], "labels": self.labels[torch.from_numpy(rows)]}


def already_batched(batch: Any) -> dict[str, Any]:
    """The loader's collating step: `PixelData` has made the batch already."""
    assert isinstance(batch, dict)
    return batch
