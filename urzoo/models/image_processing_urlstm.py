"""Images as sequences of pixels: grey or colour, one pixel a step, in a fixed order.

Everything that decides what the model sees stands in preprocessor_config.json, the order of the pixels
included, so that a checkpoint cannot be fed with another permutation than the one it was trained on.
All ways in (image object, path, bytes, array, whole batch) become one kind of array in `pixels_urlstm` and
give the same bits.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import PIL.Image
from numpy.typing import NDArray
from transformers.image_processing_base import BatchFeature
from transformers.image_processing_utils import BaseImageProcessor
from transformers.processing_utils import ImagesKwargs

from urzoo.errors import UsageError, unknown
from urzoo.models.pixels_urlstm import Array, as_bytes, named_arrays, resized

# Keys of preprocessor_config.json that say what the file is, not how to process.
_FILE_KEYS = frozenset({"image_processor_type", "processor_class", "feature_extractor_type", "auto_map"})
# PIL's weights for red, green and blue, in units of 2^-16: equal channels give back exactly their value.
_GREY_WEIGHTS = np.array([19595, 38470, 7471], dtype=np.uint32)


class PixelSequenceKwargs(ImagesKwargs, total=False):
    """The fields of PixelSequenceImageProcessor, for transformers' loader."""

    pixel_order: list[int] | None


class PixelSequenceImageProcessor(BaseImageProcessor):
    """Turns images into `pixel_values` of shape `(batch, height * width, channels)`, float32.

    Takes an image object, a path, a URL, the bytes of a file, an array or a list of these. Arrays are
    `(height, width)`, `(height, width, channels)` or a batch of such; channels may also come first. Whole numbers are
    0 to 255, floats 0 to 1 or 0 to 255: see `urzoo.models.pixels_urlstm`. A batch of bytes, uint8, takes a fast path.

    Args:
        size: `{"height": ..., "width": ...}` in pixels: what the model reads.
        do_resize: Bring images of other sizes to `size`, without regard to their proportions; False refuses them.
            Images of this size are never touched.
        resample: Pillow's filter for that, as a number: 0 nearest, 1 lanczos, 2 bilinear, 3 bicubic, 4 box, 5 hamming.
        do_grayscale: One channel; colour is converted by PIL's weights, so that a grey image that came as
            RGB gives back its values exactly. False: three channels.
        do_rescale: False says that images have been divided by 255 before: floats from 0 to 1 and nothing else.
        image_mean: Subtracted from each channel, of pixels from 0 to 1.
        image_std: What each channel is then divided by.
        pixel_order: At step t the model sees pixel `pixel_order[t]`, counted along the rows from the top
            left; None for the raster order. See `pixel_permutation`.

    Raises:
        UsageError: A value is impossible, or a keyword is not one of these.
    """

    model_input_names = ["pixel_values"]  # noqa: RUF012
    valid_kwargs = PixelSequenceKwargs

    def __init__(
        self,
        *,
        size: dict[str, int] | None = None,
        do_resize: bool = True,
        resample: int = PIL.Image.Resampling.BILINEAR,
        do_grayscale: bool = True,
        do_rescale: bool = True,
        image_mean: Sequence[float] | None = None,
        image_std: Sequence[float] | None = None,
        pixel_order: Sequence[int] | None = None,
        **kwargs: Any,
    ) -> None:
        own = ("size", "do_resize", "resample", "do_grayscale", "do_rescale", "image_mean", "image_std", "pixel_order")
        for key in kwargs:
            if key not in _FILE_KEYS:
                raise UsageError(unknown("image processor key", key, own))
        super().__init__(**kwargs)
        self.size = {"height": 28, "width": 28} if size is None else dict(size)
        self.do_resize = do_resize
        self.resample = int(resample) if isinstance(resample, int) else resample
        self.do_grayscale = do_grayscale
        self.do_rescale = do_rescale
        self.image_mean = [0.0] * self.channels if image_mean is None else [float(value) for value in image_mean]
        self.image_std = [1.0] * self.channels if image_std is None else [float(value) for value in image_std]
        self.pixel_order = None if pixel_order is None else [int(index) for index in pixel_order]
        self._check_fields()

    @property
    def channels(self) -> int:
        """Values a pixel."""
        return 1 if self.do_grayscale else 3

    @property
    def length(self) -> int:
        """Steps of a sequence: one a pixel."""
        return self.size["height"] * self.size["width"]

    def _check_fields(self) -> None:
        if set(self.size) != {"height", "width"} or not all(
            isinstance(value, int) and value > 0 for value in self.size.values()
        ):
            raise UsageError(f"size is {self.size}, expected {{'height': ..., 'width': ...}} in whole pixels.")
        filters = {int(entry): entry.name.lower() for entry in PIL.Image.Resampling}
        if isinstance(self.resample, bool) or self.resample not in filters:
            accepted = ", ".join(f"{number} ({name})" for number, name in sorted(filters.items()))
            raise UsageError(f"resample is {self.resample!r}, expected the number of a filter: {accepted}.")
        for name, values in (("image_mean", self.image_mean), ("image_std", self.image_std)):
            if len(values) != self.channels or not np.isfinite(values).all():
                raise UsageError(f"{name} is {values}, expected {self.channels} finite numbers, one a channel.")
        if min(self.image_std) <= 0:
            raise UsageError(f"image_std is {self.image_std}, expected numbers above 0.")
        if self.pixel_order is not None and sorted(self.pixel_order) != list(range(self.length)):
            raise UsageError(
                f"pixel_order has {len(self.pixel_order)} entries, expected each of 0 to {self.length - 1} once: "
                f"pixel_permutation({self.length}, seed) makes one."
            )

    def preprocess(self, images: Any, return_tensors: str | None = None, **kwargs: Any) -> BatchFeature:
        """Process images.

        Args:
            images: One image or several, in any of the forms the class takes.
            return_tensors: "pt" for torch tensors, "np" or None for numpy arrays.
            kwargs: None are taken: how to process is a matter of the checkpoint.

        Raises:
            UsageError: An image is missing, empty, of more than 8 bits or of no known scale, or holds NaN or infinity.
        """
        for key in kwargs:
            raise UsageError(
                f"{key!r} is not an argument of a call; expected images and return_tensors. "
                "Build another PixelSequenceImageProcessor to process in another way."
            )
        return BatchFeature({"pixel_values": self._pixel_values(images)}, tensor_type=return_tensors)

    def _pixel_values(self, images: Any) -> NDArray[np.float32]:
        arrays = [(name, self._as_batch(array, name, listed=listed)) for name, array, listed in named_arrays(images)]
        batches = as_bytes(arrays, scaled=not self.do_rescale)
        height, width = self.size["height"], self.size["width"]
        values = [self._normalise(resized(batch, height, width, self.resample)) for batch in batches]
        return values[0] if len(values) == 1 else np.concatenate(values)

    def _as_batch(self, array: Array, name: str, *, listed: bool) -> Array:
        """An array as `(batch, height, width, channels)`."""
        height, width = self.size["height"], self.size["width"]
        shape = array.shape
        if 0 in shape:
            raise UsageError(f"{name} is empty, of shape {shape}; expected {height} x {width} pixels.")
        first = array.ndim == 3 and shape[0] == 3 and shape[1:] != (height, width) and shape[2] not in (1, 3, 4)
        if first and self.do_grayscale and not listed:
            raise UsageError(
                f"{name} has the shape {shape}, which is three grey images or one of three colours; give a list of "
                "images, or the colours last."
            )
        batch = _in_order(array, (height, width), colour_first=listed or not self.do_grayscale)
        if batch is None:
            raise UsageError(
                f"{name} has the shape {shape}, expected ({height}, {width}) or ({height}, {width}, channels) with "
                "1, 3 or 4 channels, or a batch of such."
            )
        if listed and len(batch) != 1:
            raise UsageError(f"{name} of the list is a batch of {len(batch)}; give each image by itself.")
        if batch.shape[1:3] != (height, width) and not self.do_resize:
            raise UsageError(
                f"{name} is {batch.shape[1]} x {batch.shape[2]} pixels (height x width), expected {height} x {width}, "
                "the size this model reads; resize it first, or build the processor with do_resize=True."
            )
        return batch[..., :3]

    def _normalise(self, pixels: Array) -> NDArray[np.float32]:
        """From `(batch, height, width, channels)`, 0 to 255, to `(batch, length, channels)` in the model's order."""
        pixels = pixels.reshape(len(pixels), self.length, -1)
        whole = pixels.dtype == np.uint8
        if pixels.shape[-1] != self.channels:
            pixels = _to_colour(pixels) if self.channels == 3 else _to_grey(pixels)
        if self.pixel_order is not None:
            pixels = pixels[:, self.pixel_order]
        if not whole:
            return self._formula(pixels)
        table = self._table()
        values = np.empty(pixels.shape, dtype=np.float32)
        for channel in range(self.channels):
            np.take(table[channel], pixels[..., channel], out=values[..., channel])
        return values

    def _formula(self, numbers: NDArray[np.float64]) -> NDArray[np.float32]:
        normalised: NDArray[np.float64] = (numbers / 255.0 - np.array(self.image_mean)) / np.array(self.image_std)
        return normalised.astype(np.float32)

    def _table(self) -> NDArray[np.float32]:
        """The normalised value of every byte, `(channels, 256)`."""
        every_byte = np.repeat(np.arange(256, dtype=np.float64)[:, None], self.channels, axis=1)
        return np.ascontiguousarray(self._formula(every_byte).T)


def pixel_permutation(length: int, seed: int) -> list[int]:
    """The fixed order of pixels for permuted tasks: `numpy.random.RandomState(seed).permutation(length)`.

    Numpy keeps the streams of this old generator unchanged between versions, so a seed stands for the same
    order everywhere.

    Args:
        length: Number of pixels, such as 784.
        seed: From 0 to 2**32 - 1.
    """
    return [int(index) for index in np.random.RandomState(seed).permutation(length)]


def _in_order(array: Array, size: tuple[int, int], *, colour_first: bool) -> Array | None:
    """An array as `(batch, height, width, channels)`; None if it is no image. `size` decides where two are possible."""
    shape = array.shape
    if array.ndim == 2:
        return array[None, :, :, None]
    if array.ndim == 3:
        if shape[1:] != size and shape[2] in (1, 3, 4):
            return array[None]
        # Grey images one after another; three of them are a colour image where colour or one image is expected.
        return np.moveaxis(array, 0, -1)[None] if colour_first and shape[0] == 3 else array[..., None]
    if array.ndim == 4:
        if shape[3] in (1, 3, 4) and (shape[1:3] == size or shape[1] not in (1, 3, 4)):
            return array
        if shape[1] in (1, 3, 4):
            return np.moveaxis(array, 1, -1)
    return None


def _to_colour(pixels: Array) -> Array:
    return np.repeat(pixels, 3, axis=-1)


def _to_grey(pixels: Array) -> Array:
    if pixels.dtype != np.uint8:
        return pixels @ (_GREY_WEIGHTS / 65536.0)[:, None]
    # What PIL's convert("L") computes, in whole numbers.
    grey = (pixels.astype(np.uint32) @ _GREY_WEIGHTS + np.uint32(0x8000)) >> np.uint32(16)
    return grey.astype(np.uint8)[..., None]
