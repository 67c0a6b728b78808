"""What a user gives as an image, brought to one form: an array of pixels from 0 (black) to 255 (white).

Nothing else tells which scale an array is in, so its type and values decide, for all arrays of one call together:

    bool                        False is black, True is white
    whole numbers               0 to 255; refused where none is above 1, as black and white would be all but black
    floats up to 1              0 to 1
    floats beyond 1             0 to 255; refused where none reaches 2, or where an image of the call ends at or below 1

A hair beyond a limit, as rounding leaves it, counts as the limit. Image objects, files and their bytes are turned
upright as their EXIF data say, and become arrays.
"""

import base64
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import PIL.Image
import PIL.ImageOps
import torch
from numpy.typing import NDArray

from urzoo.errors import UsageError, one_line

Array = NDArray[Any]

_EIGHT_BIT_MODES = frozenset(
    {"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV", "LAB"}
)
# One number a pixel in the scale of its choice: what they hold decides, as in an array.
_NUMBER_MODES = frozenset({"I", "F"})
_UNREADABLE = (
    *(OSError, SyntaxError, ValueError, PIL.Image.DecompressionBombError),  # of Pillow
    *(httpx2.HTTPError, httpx2.InvalidURL, ImportError),  # the last for a proxy that needs a package
)
# As a share of the largest value: what float16 may round by.
_HAIR = 1e-3


def named_arrays(images: Any) -> Iterator[tuple[str, Array, bool]]:
    """The images of a call as arrays, each with its name in messages and whether it is one entry of a list.

    Args:
        images: An array or tensor of one image or several; an image object, path, URL or a file's bytes; or a list.

    Raises:
        UsageError: One of them is none of these, cannot be read, or has a mode of more than 8 bits a channel.
    """
    if isinstance(images, torch.Tensor | np.ndarray):
        yield "images", _array(images, "images"), False
        return
    if not isinstance(images, Sequence) or isinstance(images, str | bytes | bytearray):
        images = [images]
    if not images:
        raise UsageError("images is an empty list, expected at least one image.")
    for index, image in enumerate(images):
        yield f"image {index}", _array(image, f"image {index}"), True


def opened(image: str | Path | bytes, name: str, timeout: float | None = None) -> PIL.Image.Image:
    """The image in a file, at a URL, in base64 (`data:image/...`) or in bytes, as it was stored.

    Raises:
        UsageError: There is no such file, or it is not an image.
    """
    said = name if isinstance(image, bytes) or str(image).startswith("data:") else repr(str(image))
    try:
        source: Any = image
        if isinstance(image, str) and image.startswith(("http://", "https://")):
            source = httpx2.get(image, timeout=timeout, follow_redirects=True).raise_for_status().content
        elif isinstance(image, str) and image.startswith("data:"):
            source = base64.b64decode(image.partition(",")[2])
        found = PIL.Image.open(io.BytesIO(source) if isinstance(source, bytes) else source)
        found.load()
        return found
    except FileNotFoundError:
        raise UsageError(f"there is no image file {said}; give the path of an existing one.") from None
    except _UNREADABLE as error:
        raise UsageError(f"{said} cannot be read as an image: {one_line(error)}.") from error


def as_bytes(arrays: list[tuple[str, Array]], *, scaled: bool) -> list[Array]:
    """All images in their order, in the scale of 0 to 255: arrays of uint8 where values are whole, else of float64.

    Args:
        arrays: Of shape `(batch, height, width[, channels])`, each with its name in messages.
        scaled: Whether only floats from 0 to 1 are taken.

    Raises:
        UsageError: One holds no pixels, or it cannot be told in which scale they are.
    """
    whole = [entry for entry in arrays if entry[1].dtype.kind in "ui"]
    floats = [entry for entry in arrays if entry[1].dtype.kind == "f"]
    if len(whole) + len(floats) < len(arrays) or scaled:
        for name, array in arrays:
            if array.dtype.kind not in "buif":
                raise UsageError(f"{name} holds {array.dtype}, expected whole numbers from 0 to 255, floats or bools.")
            if scaled and array.dtype.kind != "f":
                raise UsageError(
                    f"{name} holds {array.dtype}, expected floats from 0 to 1, because do_rescale is False; build the "
                    "processor with do_rescale=True for images of bytes."
                )
    _check_whole(whole)
    top = 1.0 if _are_unit(floats, scaled=scaled) else 255.0
    return [part for _, array in arrays for part in _as_bytes(array, top)]


def resized(pixels: Array, height: int, width: int, resample: int) -> Array:
    """Arrays `(batch, height, width, channels)` in another size, each image by Pillow's filter, within 0 to 255."""
    if pixels.shape[1:3] == (height, width):
        return pixels
    batch, channels = len(pixels), pixels.shape[3]
    result = np.empty((batch, height, width, channels), pixels.dtype)
    for image, target in zip(pixels, result, strict=True):
        for channel in range(channels):
            plane = PIL.Image.fromarray(
                image[..., channel] if pixels.dtype == np.uint8 else image[..., channel].astype(np.float32)
            )
            target[..., channel] = np.asarray(plane.resize((width, height), PIL.Image.Resampling(resample)))
    return result if pixels.dtype == np.uint8 else result.clip(0.0, 255.0)


def _array(image: Any, name: str) -> Array:
    if isinstance(image, torch.Tensor):
        image = (image.float() if image.dtype == torch.bfloat16 else image).numpy(force=True)
    if isinstance(image, np.ndarray):
        return image
    if isinstance(image, bytearray):
        image = bytes(image)
    if isinstance(image, str | Path | bytes):
        image = opened(image, name)
    if not isinstance(image, PIL.Image.Image):
        raise UsageError(
            f"{name} is a {type(image).__name__}, expected an image, a path, the bytes of a file, or an array."
        )
    if 0 in image.size:
        raise UsageError(f"{name} is empty, expected an image with pixels.")
    image = _upright(image, name)
    if image.mode in _NUMBER_MODES:
        return np.asarray(image)
    if image.mode not in _EIGHT_BIT_MODES:
        raise UsageError(
            f"{name} has the mode {image.mode!r} with more than 8 bits a pixel, expected 'L' or 'RGB'; for full "
            "16 bits give numpy.asarray(image) / 65535."
        )
    # By way of RGB, as the pipelines do, so that both give the same grey.
    return np.asarray(image if image.mode in ("L", "RGB") else image.convert("RGB"))


def _upright(image: PIL.Image.Image, name: str) -> PIL.Image.Image:
    try:
        return PIL.ImageOps.exif_transpose(image)
    except (OSError, SyntaxError, ValueError, TypeError, KeyError) as error:
        raise UsageError(f"{name} has EXIF data that cannot be read: {one_line(error)}.") from error


def _check_whole(arrays: list[tuple[str, Array]]) -> None:
    largest = 0
    for name, array in arrays:
        low, high = int(array.min()), int(array.max())
        if low < 0 or high > 255:
            raise UsageError(
                f"{name} holds values from {low} to {high}, expected 0 to 255; for 16 bits divide by 65535 first."
            )
        largest = max(largest, high)
    if largest == 1:
        raise UsageError(
            f"{arrays[0][0]} holds no other numbers than 0 and 1, which of 0 to 255 are all but black; give "
            "images.astype(bool) for black and white, or images * 255."
        )


def _are_unit(arrays: list[tuple[str, Array]], *, scaled: bool) -> bool:
    """Whether the floats of a call are from 0 to 1, and not to 255."""
    if not arrays:
        return scaled
    lows, highs = [], []
    for name, array in arrays:
        values = array.reshape(len(array), -1)
        if not np.isfinite(values).all():
            raise UsageError(f"{name} holds NaN or infinity, expected finite pixels.")
        lows.append(values.min(axis=1).astype(np.float64))
        highs.append(values.max(axis=1).astype(np.float64))
    low, high = min(part.min() for part in lows), max(part.max() for part in highs)
    top = 1.0 if scaled or high <= 1.0 + _HAIR else 255.0
    if low < -top * _HAIR or high > top * (1 + _HAIR):
        expected = "0 to 1, because do_rescale is False" if scaled else "floats from 0 to 1 or from 0 to 255"
        raise UsageError(f"{arrays[0][0]} holds values from {low:g} to {high:g}, expected {expected}.")
    if top == 1.0:
        return True
    if high < 2:
        raise UsageError(
            f"{arrays[0][0]} holds floats from {low:g} to {high:g}, which are neither 0 to 1 nor, all but black, 0 to "
            "255; give images.clip(0, 1)."
        )
    for (name, _), ends in zip(arrays, highs, strict=True):
        if ((ends > _HAIR) & (ends <= 1.0 + _HAIR)).any():
            raise UsageError(
                f"{name} ends at {ends[(ends > _HAIR) & (ends <= 1.0 + _HAIR)][0]:g} where others of the same call go "
                f"to {high:g}, so its scale cannot be told; give all from 0 to 1, or all as uint8."
            )
    return False


def _as_bytes(array: Array, top: float) -> list[Array]:
    """One array, or where images of bytes stand among others one for each, so that none depends on its neighbours."""
    if array.dtype == np.uint8:
        return [array]
    if array.dtype == np.bool_:
        return [array.astype(np.uint8) * np.uint8(255)]
    if array.dtype.kind in "ui":
        return [array.astype(np.uint8)]
    values = (array.astype(np.float64) * (255.0 / top)).clip(0.0, 255.0)
    whole = np.rint(values)
    # Bytes that were divided by 255, or widened to floats, are those bytes again.
    are_bytes = np.abs(values - whole).max(axis=(1, 2, 3)) < _HAIR
    if are_bytes.all():
        return [whole.astype(np.uint8)]
    if not are_bytes.any():
        return [values]
    return [
        (image.astype(np.uint8) if is_bytes else value)[None]
        for image, value, is_bytes in zip(whole, values, are_bytes, strict=True)
    ]
