"""Random changes of images in training: what a recipe can ask for, what a row gets in an epoch, and the pure functions.

What a row of the data gets is a function of the seed, the epoch and the row alone. A run that was killed therefore
draws the same again, and several processes draw what one does.

Sources: cutout, DeVries and Taylor 2017, arXiv:1708.04552; elastic distortion, Simard, Steinkraus and Platt 2003;
CutMix, Yun et al. 2019, arXiv:1905.04899; brightness and contrast as in torchvision's ColorJitter.
"""

from functools import lru_cache
from typing import Annotated, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from pydantic import Field, model_validator

from urzoo.schema import Count, Number, Positive, Strict
from urzoo.training.batches import Rows
from urzoo.training.recipe import MayBeLeftOut, PositiveNumber

Images = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]

Change = Annotated[Number, Field(gt=0, lt=1)]
Probability = Annotated[Number, Field(gt=0, le=1)]

# What sets the streams of one seed and epoch apart; 0 is the order's. A new kind of change takes a new number, so that
# older recipes keep their draws.
_SHIFTS, _MAPS, _ERASED, _ELASTIC, _JITTER, _CUTMIX, _INTERPOLATED = range(1, 8)


class ElasticRecipe(Strict):
    """Elastic distortion: each pixel is moved by smoothed noise; Simard et al. 2003 have 34 and 4 for 29 x 29 pixels.

    The noise, uniform between -1 and 1, is smoothed by a Gaussian with a deviation of `sigma_pixels`, and multiplied by
    `alpha_pixels`.
    """

    alpha_pixels: PositiveNumber
    sigma_pixels: PositiveNumber


class CutMixRecipe(Strict):
    """CutMix: with this probability an image gets a rectangle of another training image, and its share of the label.

    The share of the rectangle, before it is cut off at the edge, has the distribution Beta(`alpha`, `alpha`).
    """

    probability: Probability
    alpha: PositiveNumber


class ImageAugmentationRecipe(Strict):
    """Changes drawn for each image in each epoch: shifts of at most so many pixels each way, and mirroring.

    With `rotate_degrees` an image is turned about its centre by at most so many degrees either way, with `scale_change`
    its size changes by at most so large a share, with `elastic` it is distorted. These three interpolate between
    pixels, which blurs; with `interpolation_probability` so large a share of the images goes through them, and the
    others stay sharp. With `brightness_change` and `contrast_change` these are multiplied by a factor that differs from
    1 by at most so much, with `erase_pixels` a square of so many pixels a side becomes black, with `cutmix` images and
    labels are mixed. Each but the first two may be left out, as in recipes that are older than it, whose digests stand.
    """

    shift_pixels: Count
    flip_horizontal: bool
    rotate_degrees: MayBeLeftOut[Annotated[Number, Field(gt=0, le=180)]] = None
    scale_change: MayBeLeftOut[Change] = None
    elastic: MayBeLeftOut[ElasticRecipe] = None
    interpolation_probability: MayBeLeftOut[Probability] = None
    brightness_change: MayBeLeftOut[Change] = None
    contrast_change: MayBeLeftOut[Change] = None
    erase_pixels: MayBeLeftOut[Positive] = None
    cutmix: MayBeLeftOut[CutMixRecipe] = None

    @model_validator(mode="after")
    def _something_interpolates(self) -> Self:
        share = self.interpolation_probability
        if share is not None and not (self.rotate_degrees or self.scale_change or self.elastic):
            raise ValueError(
                f"augmentation.interpolation_probability is {share}, but nothing interpolates; give rotate_degrees, "
                "scale_change or elastic too, or leave it out"
            )
        return self


class _Draws(NamedTuple):
    """What every row gets in an epoch, whether the recipe asks for it or not."""

    shifts: Rows
    flips: npt.NDArray[np.bool_]
    maps: torch.Tensor
    interpolated: npt.NDArray[np.bool_]
    factors: Floats
    centres: Floats


class ImageAugmentation:
    """Random changes of uint8 images; what a sample gets depends on the seed, the epoch and its row.

    In this order: mirroring; turning, scaling and elastic distortion, between pixels by one bilinear interpolation;
    shifts by up to `shift_pixels` whole pixels in each direction; brightness, then contrast; a black square of
    `erase_pixels` whose centre lies anywhere in the image. What comes in from outside the image is black. Which images
    are mixed with it by CutMix, and where, `partners` says.

    Args:
        recipe: What to change.
        rows: Number of rows of the data.
        seed: With the epoch, it decides what each row gets.
    """

    def __init__(self, recipe: ImageAugmentationRecipe, *, rows: int, seed: int) -> None:
        self.recipe, self.rows, self.seed = recipe, rows, seed
        self.rotate_degrees, self.scale_change = recipe.rotate_degrees or 0.0, recipe.scale_change or 0.0
        self.interpolates = bool(self.rotate_degrees or self.scale_change or recipe.elastic)
        self.jitters = (recipe.brightness_change or 0.0, recipe.contrast_change or 0.0)
        self._drawn, self._partners = lru_cache(maxsize=1)(self._draw), lru_cache(maxsize=1)(self._draw_partners)

    def __call__(self, images: Images, *, epoch: int, rows: Rows) -> Images:
        """Changed copies of `images`, `(batch, height, width[, channels])`, which are the given rows of the data."""
        draws, recipe = self._drawn(epoch), self.recipe
        if recipe.flip_horizontal:
            flips = draws.flips[rows].reshape(-1, *[1] * (images.ndim - 1))
            images = np.where(flips, images[:, :, ::-1], images)
        if self.interpolates:
            images = self._moved(images, draws, epoch=epoch, rows=rows)
        if recipe.shift_pixels:
            images = shifted(images, draws.shifts[rows], recipe.shift_pixels)
        if any(self.jitters):
            images = jittered(images, draws.factors[rows])
        if recipe.erase_pixels:
            images = erased(images, draws.centres[rows], recipe.erase_pixels)
        return images

    def partners(self, *, epoch: int, rows: Rows) -> tuple[Rows, Floats, Floats]:
        """With what to mix the given rows by CutMix.

        Returns:
            Another row for each, `(batch,)`, any of the data; where the centre of its rectangle lies, `(batch, 2)`, as
            in `mixed`; and the share of each side that it takes, `(batch,)`, 0 where nothing is mixed.
        """
        others, centres, sides = self._partners(epoch)
        return others[rows], centres[rows], sides[rows]

    def _generator(self, epoch: int, *stream: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, epoch, *stream))

    def _draw(self, epoch: int) -> _Draws:
        """Draw for all rows at once, so that a sample's draw does not depend on the batch it is in."""
        generator, recipe, rows = self._generator(epoch, _SHIFTS), self.recipe, self.rows
        return _Draws(
            shifts=generator.integers(0, 2 * recipe.shift_pixels, size=(rows, 2), endpoint=True),
            flips=generator.random(rows) < 0.5,
            maps=self._draw_maps(epoch),
            interpolated=self._generator(epoch, _INTERPOLATED).random(rows) < (recipe.interpolation_probability or 1.0),
            factors=1 + self._generator(epoch, _JITTER).uniform(-1, 1, (rows, 2)) * self.jitters,
            centres=self._generator(epoch, _ERASED).random((rows, 2)),
        )

    def _draw_maps(self, epoch: int) -> torch.Tensor:
        generator = self._generator(epoch, _MAPS)
        angles = np.deg2rad(generator.uniform(-self.rotate_degrees, self.rotate_degrees, self.rows))
        # A map leads from a place in the new image to one in the old: an image grows where the map shrinks.
        scales = 1 / (1 + generator.uniform(-self.scale_change, self.scale_change, self.rows))
        cosines, sines, zeros = scales * np.cos(angles), scales * np.sin(angles), np.zeros(self.rows)
        maps = np.stack([cosines, -sines, zeros, sines, cosines, zeros], axis=1).reshape(-1, 2, 3)
        return torch.from_numpy(maps.astype(np.float32))

    def _draw_partners(self, epoch: int) -> tuple[Rows, Floats, Floats]:
        generator, recipe = self._generator(epoch, _CUTMIX), self.recipe.cutmix
        assert recipe is not None
        others = generator.integers(0, self.rows, self.rows)
        centres = generator.random((self.rows, 2))
        sides = np.sqrt(generator.beta(recipe.alpha, recipe.alpha, self.rows))
        return others, centres, np.where(generator.random(self.rows) < recipe.probability, sides, 0.0)

    def _moved(self, images: Images, draws: _Draws, *, epoch: int, rows: Rows) -> Images:
        chosen = draws.interpolated[rows]
        if not chosen.any():
            return images
        rows, elastic, displacements = rows[chosen], self.recipe.elastic, None
        if elastic is not None:
            # The noise of an epoch would take hundreds of megabytes: each row has a stream of its own.
            size = (2, *images.shape[1:3])
            noise = np.stack([self._generator(epoch, _ELASTIC, row).uniform(-1, 1, size) for row in rows.tolist()])
            displacements = elastic.alpha_pixels * smoothed(noise, elastic.sigma_pixels)
        result = images.copy()
        result[chosen] = mapped(images[chosen], draws.maps[torch.from_numpy(rows)], displacements)
        return result


def shifted(images: Images, shifts: npt.NDArray[np.int64], margin: int) -> Images:
    """Images moved by whole pixels, black outside.

    Args:
        images: uint8, `(batch, height, width[, channels])`.
        shifts: From 0 to twice `margin`, `(batch, 2)`: where the result begins in an image with a rim of `margin`
            black pixels, in lines and columns.
        margin: The largest shift, in pixels.
    """
    batch, height, width = images.shape[:3]
    padded = np.pad(images, [(0, 0), (margin, margin), (margin, margin)] + [(0, 0)] * (images.ndim - 3))
    lines = shifts[:, 0, None] + np.arange(height)
    columns = shifts[:, 1, None] + np.arange(width)
    result: Images = padded[np.arange(batch)[:, None, None], lines[:, :, None], columns[:, None, :]]
    return result


def mapped(images: Images, maps: torch.Tensor, displacements: Floats | None = None) -> Images:
    """Images through affine maps, and distorted where displacements are given; black outside.

    Args:
        images: uint8, `(batch, height, width[, channels])`.
        maps: float32, `(batch, 2, 3)`, from places `(x, y)` of the result to those of `images`, seen from the centre.
            Turns and scales are those of a plane, whatever the width and the height.
        displacements: How far from there each pixel is taken, in pixels, `(batch, 2, height, width)`, x before y.
    """
    height, width = images.shape[1:3]
    # torch counts x in half widths and y in half heights.
    maps = maps * maps.new_tensor([[1.0, height / width, 1.0], [width / height, 1.0, 1.0]])
    pixels = torch.from_numpy(np.ascontiguousarray(images)).float()
    pixels = pixels.unsqueeze(1) if images.ndim == 3 else pixels.movedim(-1, 1)
    places = F.affine_grid(maps, list(pixels.shape), align_corners=False)
    if displacements is not None:
        places = places + torch.from_numpy(displacements).float().movedim(1, -1) * maps.new_tensor(
            [2 / width, 2 / height]
        )
    moved = F.grid_sample(pixels, places, mode="bilinear", padding_mode="zeros", align_corners=False)
    moved = moved.round().clamp(0, 255).to(torch.uint8)
    result: Images = (moved.squeeze(1) if images.ndim == 3 else moved.movedim(1, -1)).numpy()
    return result


def smoothed(noise: Floats, sigma: float) -> Floats:
    """Fields smoothed by a Gaussian, 0 outside; as `scipy.ndimage.gaussian_filter` with `mode="constant"`.

    Args:
        noise: `(..., height, width)`.
        sigma: The Gaussian's deviation, in pixels.
    """
    height, width = noise.shape[-2:]
    result: Floats = _gaussian(height, sigma) @ noise @ _gaussian(width, sigma)
    return result


@lru_cache(maxsize=8)
def _gaussian(size: int, sigma: float) -> Floats:
    """The matrix `(size, size)` that smooths a line; symmetric. Cut off at four deviations, as scipy does."""
    reach = int(4 * sigma + 0.5)
    total = np.exp(-((np.arange(-reach, reach + 1) / sigma) ** 2) / 2).sum()
    distances = np.subtract.outer(np.arange(size), np.arange(size))
    matrix: Floats = np.where(abs(distances) <= reach, np.exp(-((distances / sigma) ** 2) / 2) / total, 0.0)
    return matrix


def jittered(images: Images, factors: Floats) -> Images:
    """Images made brighter or darker, then richer or poorer in contrast; as torchvision's ColorJitter does.

    Args:
        images: uint8, `(batch, height, width[, channels])`; three channels are red, green and blue.
        factors: Of brightness, which multiplies the pixels, and of contrast, which multiplies their distance from the
            mean grey of their image, `(batch, 2)`; 1 changes nothing.
    """
    shape = (-1, *[1] * (images.ndim - 1))
    brightness, contrast = (factors[:, place].astype(np.float32).reshape(shape) for place in range(2))
    bright = np.clip(images * brightness, 0, 255)
    grey = bright if images.ndim == 3 else bright[..., 0] * 0.299 + bright[..., 1] * 0.587 + bright[..., 2] * 0.114
    mean = grey.reshape(len(images), grey.shape[1] * grey.shape[2]).mean(1).reshape(contrast.shape)
    result: Images = np.rint(np.clip(mean + contrast * (bright - mean), 0, 255)).astype(np.uint8)
    return result


def erased(images: Images, centres: Floats, side: int) -> Images:
    """Copies of images with a black square in each, cut off where it reaches over the edge (cutout).

    Args:
        images: uint8, `(batch, height, width[, channels])`.
        centres: Where the squares' centres lie, `(batch, 2)`, from 0 to 1 over the height and over the width.
        side: Of the square, in pixels.
    """
    square = _rectangles(images, centres, np.full((len(images), 2), side))
    result: Images = np.where(square, np.uint8(0), images)
    return result


def mixed(images: Images, others: Images, centres: Floats, sides: Floats) -> tuple[Images, Floats]:
    """Copies of images with a rectangle of another image in each, cut off where it reaches over the edge (CutMix).

    Args:
        images: uint8, `(batch, height, width[, channels])`.
        others: Of the same shape; what stands in the rectangle stood there.
        centres: Where the rectangles' centres lie, `(batch, 2)`, from 0 to 1 over the height and over the width.
        sides: The rectangle's share of the height and of the width, `(batch,)`.

    Returns:
        The images, and the share of each that `others` has, `(batch,)`, by its pixels.
    """
    sizes = np.floor(sides[:, None] * images.shape[1:3]).astype(np.int64)
    inside = _rectangles(images, centres, sizes)
    result: Images = np.where(inside, others, images)
    shares: Floats = inside.reshape(len(images), -1).mean(1)
    return result, shares


def _rectangles(images: Images, centres: Floats, sizes: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Where rectangles of `sizes` pixels about `centres` lie, both `(batch, 2)`; `(batch, height, width[, 1])`."""
    inside = []
    for axis, size in enumerate(images.shape[1:3]):
        first = np.floor(centres[:, axis, None] * size).astype(np.int64) - sizes[:, axis, None] // 2
        inside.append((np.arange(size) >= first) & (np.arange(size) < first + sizes[:, axis, None]))
    result: npt.NDArray[np.bool_] = inside[0][:, :, None] & inside[1][:, None, :]
    return result if images.ndim == 3 else result[..., None]


def mixed_labels(labels: torch.Tensor, others: torch.Tensor, shares: Floats, classes: int) -> torch.Tensor:
    """The weight of each class: a label's own, less the share that the other image's has.

    Args:
        labels: int64, `(batch,)`.
        others: int64, `(batch,)`.
        shares: Of the others, from 0 to 1, `(batch,)`.
        classes: How many there are.

    Returns:
        float32, `(batch, classes)`; a row's sum is 1.
    """
    weights = torch.from_numpy(shares).float()[:, None]
    return torch.lerp(F.one_hot(labels, classes).float(), F.one_hot(others, classes).float(), weights)
