"""Images as sequences of pixels: grey or colour, one pixel a step, in a fixed order.

Everything that decides what the model sees stands in preprocessor_config.json, the order of the pixels
included, so that a checkpoint cannot be fed with another permutation than the one it was trained on.
All ways in (image object, path, array, whole batch of bytes) meet in `_table` or its formula and give
the same bits.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageOps
import torch
from numpy.typing import NDArray
from transformers.image_processing_base import BatchFeature
from transformers.image_processing_utils import BaseImageProcessor
from transformers.image_utils import load_image
from transformers.processing_utils import ImagesKwargs

from urzoo.errors import UsageError, one_line, unknown

# Keys of preprocessor_config.json that say what the file is, not how to process.
_FILE_KEYS = frozenset({"image_processor_type", "processor_class", "feature_extractor_type", "auto_map"})
_EIGHT_BIT_MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "LAB"})
# PIL's weights for red, green and blue, in units of 2^-16: equal channels give back exactly their value.
_GREY_WEIGHTS = np.array([19595, 38470, 7471], dtype=np.uint32)

Bytes = NDArray[np.uint8]
Floats = NDArray[np.floating[Any]]


class PixelSequenceKwargs(ImagesKwargs, total=False):
    """The fields of PixelSequenceImageProcessor, for transformers' loader."""

    pixel_order: list[int] | None


class PixelSequenceImageProcessor(BaseImageProcessor):
    """Turns images into `pixel_values` of shape `(batch, height * width, channels)`, float32.

    Takes an image object, a path, an array or a list of these. Arrays are `(height, width)`,
    `(height, width, channels)` or a batch of such; channels may also come first. Integers are 0 to 255,
    and floats too unless `do_rescale` is False. A batch of bytes, uint8, takes a fast path.

    Args:
        size: `{"height": ..., "width": ...}` in pixels; an image of another size is refused, not resized.
        do_grayscale: One channel; colour is converted by PIL's weights, so that a grey image that came as
            RGB gives back its values exactly. False: three channels.
        do_rescale: Divide by 255 before normalising.
        image_mean: Subtracted from each channel, after rescaling.
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
        do_grayscale: bool = True,
        do_rescale: bool = True,
        image_mean: Sequence[float] | None = None,
        image_std: Sequence[float] | None = None,
        pixel_order: Sequence[int] | None = None,
        **kwargs: Any,
    ) -> None:
        own = ("size", "do_grayscale", "do_rescale", "image_mean", "image_std", "pixel_order")
        for key in kwargs:
            if key not in _FILE_KEYS:
                raise UsageError(unknown("image processor key", key, own))
        super().__init__(**kwargs)
        self.size = {"height": 28, "width": 28} if size is None else dict(size)
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
            UsageError: An image is missing, empty, of another size or depth, or holds NaN or infinity.
        """
        for key in kwargs:
            raise UsageError(
                f"{key!r} is not an argument of a call; expected images and return_tensors. "
                "Build another PixelSequenceImageProcessor to process in another way."
            )
        return BatchFeature({"pixel_values": self._pixel_values(images)}, tensor_type=return_tensors)

    def _pixel_values(self, images: Any) -> NDArray[np.float32]:
        if isinstance(images, torch.Tensor):
            images = images.detach().cpu().numpy()
        if isinstance(images, np.ndarray):
            batch, channels_first = self._as_batch(images)
            return self._normalise(np.moveaxis(batch, 1, -1) if channels_first else batch)
        if not isinstance(images, list | tuple):
            images = [images]
        if not images:
            raise UsageError("images is an empty list, expected at least one image.")
        return np.concatenate([self._one(image, f"image {index}") for index, image in enumerate(images)])

    def _one(self, image: Any, name: str) -> NDArray[np.float32]:
        if isinstance(image, torch.Tensor):
            image = image.detach().cpu().numpy()
        if isinstance(image, np.ndarray):
            batch, channels_first = self._as_batch(image, name)
            if len(batch) != 1:
                raise UsageError(f"{name} of the list is a batch of {len(batch)}; give each image by itself.")
            return self._normalise(np.moveaxis(batch, 1, -1) if channels_first else batch, name)
        if isinstance(image, str | Path):
            image = _open(image)
        if not isinstance(image, PIL.Image.Image):
            raise UsageError(
                f"{name} is a {type(image).__name__}, expected an image, a path, or an array of "
                f"{self.size['height']} x {self.size['width']} pixels."
            )
        if image.mode not in _EIGHT_BIT_MODES:
            raise UsageError(
                f"{name} has the mode {image.mode!r} with more than 8 bits a pixel, expected 'L' or 'RGB'; "
                "convert it first."
            )
        self._check_size(image.height, image.width, name)
        # By way of RGB, as the pipelines do, so that both give the same grey.
        colour = np.asarray(image if image.mode in ("L", "RGB") else image.convert("RGB"))
        return self._normalise(colour.reshape(1, image.height, image.width, -1), name)

    def _as_batch(self, array: NDArray[Any], name: str = "images") -> tuple[NDArray[Any], bool]:
        """An array as `(batch, height, width[, channels])` or, said by the flag, with the channels second."""
        height, width = self.size["height"], self.size["width"]
        shape = array.shape
        if 0 in shape:
            raise UsageError(f"{name} is empty, of shape {shape}; expected {height} x {width} pixels.")
        if array.ndim == 2 and shape == (height, width):
            return array[None], False
        if array.ndim == 3 and shape[1:] == (height, width):
            # Grey images one after another; three of them are a colour image only where colour is wanted.
            colour_first = shape[0] == 3 and not self.do_grayscale
            return (array[None], True) if colour_first else (array, False)
        if array.ndim == 3 and shape[:2] == (height, width) and shape[2] in (1, 3, 4):
            return array[None], False
        if array.ndim == 4 and shape[1:3] == (height, width) and shape[3] in (1, 3, 4):
            return array, False
        if array.ndim == 4 and shape[2:] == (height, width) and shape[1] in (1, 3, 4):
            return array, True
        raise UsageError(
            f"{name} has the shape {shape}, expected ({height}, {width}) or ({height}, {width}, channels) with "
            "1, 3 or 4 channels, or a batch of such; resize the images to this size first."
        )

    def _check_size(self, height: int, width: int, name: str) -> None:
        if (height, width) != (self.size["height"], self.size["width"]):
            what = "empty" if 0 in (height, width) else f"{height} x {width} pixels (height x width)"
            raise UsageError(
                f"{name} is {what}, expected {self.size['height']} x {self.size['width']}, the size this model reads; "
                "resize it first."
            )

    def _normalise(self, batch: NDArray[Any], name: str = "images") -> NDArray[np.float32]:
        """From `(batch, height, width[, channels])` to `(batch, length, channels)`, in the model's order."""
        pixels = batch.reshape(len(batch), self.length, -1)[..., :3]
        if pixels.dtype == np.bool_:
            pixels = pixels.astype(np.uint8) * np.uint8(255)
        if pixels.dtype != np.uint8:
            return self._normalise_numbers(pixels, name)
        pixels = _to_channels_uint8(pixels, self.channels)
        if self.pixel_order is not None:
            pixels = pixels[:, self.pixel_order]
        table = self._table()
        values = np.empty(pixels.shape, dtype=np.float32)
        for channel in range(self.channels):
            np.take(table[channel], pixels[..., channel], out=values[..., channel])
        return values

    def _normalise_numbers(self, pixels: NDArray[Any], name: str) -> NDArray[np.float32]:
        if not (np.issubdtype(pixels.dtype, np.floating) or np.issubdtype(pixels.dtype, np.integer)):
            raise UsageError(f"{name} holds {pixels.dtype}, expected whole numbers from 0 to 255 or floats.")
        numbers = pixels.astype(np.float64)
        if not np.isfinite(numbers).all():
            raise UsageError(f"{name} holds NaN or infinity, expected finite pixels.")
        top = 255.0 if self.do_rescale or np.issubdtype(pixels.dtype, np.integer) else 1.0
        if numbers.min() < 0 or numbers.max() > top:
            raise UsageError(
                f"{name} holds values from {numbers.min():g} to {numbers.max():g}, expected 0 to {top:g}; "
                "whole numbers are 0 to 255, and floats too unless do_rescale is False."
            )
        if top == 255 and numbers.max() <= 1 and (numbers % 1).any():
            raise UsageError(
                f"{name} holds fractions from {numbers.min():g} to {numbers.max():g}, expected 0 to 255; "
                "build the processor with do_rescale=False for pixels that are scaled to 0 ... 1."
            )
        if numbers.shape[-1] != self.channels:
            if self.channels == 3:
                numbers = np.repeat(numbers, 3, axis=-1)
            elif (numbers % 1).any():
                numbers = numbers @ (_GREY_WEIGHTS / 65536.0)[:, None]
            else:
                numbers = _to_channels_uint8(numbers.astype(np.uint8), 1).astype(np.float64)
        if self.pixel_order is not None:
            numbers = numbers[:, self.pixel_order]
        return self._formula(numbers)

    def _formula(self, numbers: NDArray[np.float64]) -> NDArray[np.float32]:
        scale = 255.0 if self.do_rescale else 1.0
        normalised: NDArray[np.float64] = (numbers / scale - np.array(self.image_mean)) / np.array(self.image_std)
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


def _to_channels_uint8(pixels: Bytes, channels: int) -> Bytes:
    if pixels.shape[-1] == channels:
        return pixels
    if channels == 3:
        return np.repeat(pixels, 3, axis=-1)
    # What PIL's convert("L") computes, in whole numbers.
    grey = (pixels.astype(np.uint32) @ _GREY_WEIGHTS + np.uint32(0x8000)) >> np.uint32(16)
    return grey.astype(np.uint8)[..., None]


def _open(path: str | Path) -> PIL.Image.Image:
    """The image in a file, upright as its EXIF data say; a string may also be a URL, as in the pipelines.

    Raises:
        UsageError: There is no such file, or it is not an image.
    """
    if isinstance(path, str) and path.startswith(("http://", "https://", "data:")):
        return load_image(path)
    try:
        with PIL.Image.open(path) as image:
            image.load()
            return PIL.ImageOps.exif_transpose(image)
    except FileNotFoundError:
        raise UsageError(f"there is no image file {str(path)!r}; give the path of an existing one.") from None
    except (OSError, SyntaxError, PIL.Image.DecompressionBombError) as error:
        raise UsageError(f"{str(path)!r} cannot be read as an image: {one_line(error)}.") from error
