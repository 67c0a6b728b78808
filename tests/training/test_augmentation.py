import numpy as np
import pytest
import scipy.ndimage
import torch
import torch.nn.functional as F
from PIL import Image, ImageEnhance

from tests.training.tiny import tiny_recipe
from urzoo.errors import RecipeError
from urzoo.models import PixelSequenceImageProcessor
from urzoo.training import load_recipe
from urzoo.training.augmentation import (
    ImageAugmentation,
    ImageAugmentationRecipe,
    erased,
    jittered,
    mapped,
    mixed,
    mixed_labels,
    smoothed,
)
from urzoo.training.kinds.images import PixelData, mixed_loss

ELASTIC = {"alpha_pixels": 34.0, "sigma_pixels": 4.0}
CUTMIX = {"probability": 0.5, "alpha": 1.0}
ALL = {
    "rotate_degrees": 10,
    "scale_change": 0.1,
    "elastic": ELASTIC,
    "interpolation_probability": 0.5,
    "brightness_change": 0.2,
    "contrast_change": 0.2,
    "erase_pixels": 2,
    "cutmix": CUTMIX,
}
STILL = {"shift_pixels": 0, "flip_horizontal": False}


def augmentation(**changes):
    recipe = {"shift_pixels": 2, "flip_horizontal": True} | changes
    return ImageAugmentation(ImageAugmentationRecipe(**recipe), rows=50, seed=1)


def images(rows=50):
    return np.random.default_rng(0).integers(1, 256, size=(rows, 6, 6), dtype=np.uint8)


def test_what_a_sample_gets_does_not_depend_on_its_batch():
    whole = augmentation()(images(), epoch=3, rows=np.arange(50))
    part = augmentation()(images()[[30, 7]], epoch=3, rows=np.array([30, 7]))
    assert np.array_equal(whole[[30, 7]], part)
    assert not np.array_equal(whole, augmentation()(images(), epoch=4, rows=np.arange(50)))


def test_shifts_and_mirroring_are_the_only_changes():
    changed = augmentation()(images(), epoch=0, rows=np.arange(50))
    for before, after in zip(images(), changed, strict=True):
        padded = [np.pad(image, 2) for image in (before, before[:, ::-1])]
        windows = [pad[y : y + 6, x : x + 6] for pad in padded for y in range(5) for x in range(5)]
        assert any(np.array_equal(after, window) for window in windows)


def test_nothing_is_changed_where_nothing_is_asked_for():
    same = augmentation(shift_pixels=0, flip_horizontal=False)(images(), epoch=0, rows=np.arange(50))
    assert np.array_equal(same, images())


def picture(*shape):
    """Smooth in the middle and black at the rim."""
    line = np.sin(np.linspace(0, np.pi, shape[0])) ** 2
    ramp = np.linspace(0.2, 1, shape[0])
    plane = 255 * line[:, None] * line * ramp
    return np.stack([plane] * shape[2], axis=-1).astype(np.uint8) if len(shape) == 3 else plane.astype(np.uint8)


@pytest.mark.parametrize("shape", [(28, 28), (28, 28, 3)])
def test_images_are_turned_by_at_most_the_angle_asked_for(shape):
    still = picture(*shape)
    recipe = ImageAugmentationRecipe(shift_pixels=0, flip_horizontal=False, rotate_degrees=90)
    turned = ImageAugmentation(recipe, rows=400, seed=1)(np.stack([still] * 400), epoch=0, rows=np.arange(400))
    assert turned.shape == (400, *shape)
    assert turned.dtype == np.uint8
    # The centre of mass lies right of the middle; its direction is the angle.
    mass = turned.reshape(400, 28, 28, -1)[..., 0].astype(float)
    axis = np.arange(28) - 13.5
    x, y = (mass * axis).sum((1, 2)), (mass * axis[:, None]).sum((1, 2))
    angles = np.rad2deg(np.arctan2(y, x))
    assert abs(angles).max() < 92
    assert angles.min() < -80
    assert angles.max() > 80
    assert abs(np.median(angles)) < 15


def test_images_change_their_size_by_at_most_the_share_asked_for():
    still = picture(28, 28)
    recipe = ImageAugmentationRecipe(shift_pixels=0, flip_horizontal=False, scale_change=0.2)
    scaled = ImageAugmentation(recipe, rows=400, seed=1)(np.stack([still] * 400), epoch=0, rows=np.arange(400))
    sizes = np.sqrt(scaled.sum((1, 2), dtype=float) / still.sum(dtype=float))
    assert 0.78 < sizes.min() < 0.84
    assert 1.14 < sizes.max() < 1.21


def test_images_that_are_not_square_are_turned_without_shearing():
    line = np.zeros((1, 28, 56), np.uint8)
    line[:, 13:15, 16:40] = 255
    quarter = np.pi / 2
    maps = torch.tensor([[[np.cos(quarter), -np.sin(quarter), 0], [np.sin(quarter), np.cos(quarter), 0]]])
    (turned,) = mapped(line, maps.float())
    expected = np.zeros((28, 56), np.uint8)
    expected[2:26, 27:29] = 255
    assert np.array_equal(turned, expected)


def test_what_turning_gives_a_sample_does_not_depend_on_its_batch():
    turned, rows = augmentation(rotate_degrees=10, scale_change=0.1), np.array([30, 7])
    whole = turned(images(), epoch=3, rows=np.arange(50))
    assert np.array_equal(whole[rows], turned(images()[rows], epoch=3, rows=rows))


def test_turning_leaves_shifts_and_mirroring_as_they_are():
    hardly, rows = augmentation(rotate_degrees=1e-6), np.arange(50)
    assert np.array_equal(hardly(images(), epoch=3, rows=rows), augmentation()(images(), epoch=3, rows=rows))


def test_a_square_of_each_image_is_erased():
    white = np.full((50, 12, 9), 255, np.uint8)
    black = augmentation(shift_pixels=0, flip_horizontal=False, erase_pixels=4)(white, epoch=1, rows=np.arange(50))
    assert white.min() == 255
    sizes = (black == 0).sum((1, 2))
    assert sizes.max() == 16
    assert sizes.min() >= 4  # the centre is in the image: no less than a quarter of a square is
    assert len({image.tobytes() for image in black}) > 25


@pytest.mark.parametrize(("centre", "lines", "columns"), [((0, 0), (0, 2), (0, 2)), ((0.5, 0.99), (4, 8), (6, 9))])
def test_a_square_lies_about_its_centre_and_ends_at_the_edge(centre, lines, columns):
    (image,) = erased(np.full((1, 12, 9, 3), 200, np.uint8), np.array([centre]), 4)
    expected = np.full((12, 9, 3), 200, np.uint8)
    expected[slice(*lines), slice(*columns)] = 0
    assert np.array_equal(image, expected)


def test_squares_lie_everywhere():
    recipe = ImageAugmentationRecipe(shift_pixels=0, flip_horizontal=False, erase_pixels=2)
    white = np.full((4000, 12, 9), 255, np.uint8)
    black = ImageAugmentation(recipe, rows=4000, seed=2)(white, epoch=0, rows=np.arange(4000)) == 0
    assert black.any(0).all()


def test_what_is_erased_does_not_depend_on_the_batch_and_leaves_the_rest_as_it_is():
    erasing, rows = augmentation(erase_pixels=3), np.array([30, 7])
    whole = erasing(images(), epoch=3, rows=np.arange(50))
    assert np.array_equal(whole[rows], erasing(images()[rows], epoch=3, rows=rows))
    before = augmentation()(images(), epoch=3, rows=np.arange(50))
    assert np.array_equal(whole[whole != before], np.zeros((whole != before).sum(), np.uint8))


def test_a_recipe_without_turning_keeps_its_digest():
    assert set(ImageAugmentationRecipe(shift_pixels=1, flip_horizontal=False).model_dump()) == {
        "shift_pixels",
        "flip_horizontal",
    }


def test_all_changes_together_do_not_depend_on_the_batch_and_differ_by_epoch():
    data = PixelData(images(), np.arange(50) % 10, PixelSequenceImageProcessor(size={"height": 6, "width": 6}))
    data.augmentation, data.classes = augmentation(**ALL), 10
    whole = data.batch(np.arange(50), epoch=3)
    # Another object, as a second process has, and in another order.
    data.augmentation = augmentation(**ALL)
    part = data.batch(np.array([30, 7]), epoch=3)
    for name, values in whole.items():
        assert torch.equal(values[[30, 7]], part[name])
    assert not torch.equal(data.batch(np.arange(50), epoch=4)["pixel_values"], whole["pixel_values"])


@pytest.mark.parametrize("key", ["elastic", "interpolation_probability", "brightness_change", "contrast_change"])
def test_a_further_key_leaves_the_other_draws_as_they_are(key):
    hardly = {
        "elastic": {"alpha_pixels": 1e-9, "sigma_pixels": 1.0},
        "interpolation_probability": 1.0,
        "brightness_change": 1e-9,
        "contrast_change": 1e-9,
    }
    changes, rows = {"rotate_degrees": 20, "erase_pixels": 2}, np.arange(50)
    plain = augmentation(**changes)(images(), epoch=3, rows=rows)
    assert np.array_equal(augmentation(**changes, **{key: hardly[key]})(images(), epoch=3, rows=rows), plain)


def test_the_share_of_images_asked_for_is_interpolated_and_the_others_are_untouched():
    many = np.stack([picture(28, 28)] * 1000)
    recipe = ImageAugmentationRecipe(**STILL, rotate_degrees=30, elastic=ELASTIC, interpolation_probability=0.3)
    changed = ImageAugmentation(recipe, rows=1000, seed=1)(many, epoch=0, rows=np.arange(1000)) != many
    assert 0.25 < changed.any((1, 2)).mean() < 0.35


def test_smoothing_is_scipys():
    noise = np.random.default_rng(0).uniform(-1, 1, (3, 20, 28))
    for sigma in (0.7, 4.0, 9.0):
        expected = [scipy.ndimage.gaussian_filter(field, sigma, mode="constant") for field in noise]
        np.testing.assert_allclose(smoothed(noise, sigma), expected, atol=1e-12)


@pytest.mark.parametrize("shape", [(20, 28), (20, 28, 3)])
def test_each_pixel_is_taken_from_where_its_displacement_leads(shape):
    generator = np.random.default_rng(0)
    still = generator.integers(0, 256, (2, *shape), dtype=np.uint8)
    unmoved = torch.tensor([[[1.0, 0, 0], [0, 1, 0]]] * 2)
    displacements = generator.uniform(-3, 3, (2, 2, 20, 28))
    lines, columns = np.mgrid[:20, :28]
    planes = still.reshape(2, 20, 28, -1)
    expected = [
        [
            scipy.ndimage.map_coordinates(
                plane.astype(float), [lines + y, columns + x], order=1, mode="grid-constant", cval=0
            )
            for plane in np.moveaxis(image, -1, 0)
        ]
        for image, (x, y) in zip(planes, displacements, strict=True)
    ]
    found = mapped(still, unmoved, displacements).reshape(2, 20, 28, -1)
    np.testing.assert_allclose(found, np.moveaxis(np.array(expected), 1, -1), atol=0.51)


def test_an_elastic_distortion_has_the_size_asked_for():
    # The noise has a deviation of 1 / sqrt(3), of which smoothing in a plane leaves 1 / (2 sqrt(pi) sigma).
    noise = np.random.default_rng(0).uniform(-1, 1, (400, 2, 57, 57))
    middle = 34 * smoothed(noise, 4.0)[..., 20:37, 20:37]
    assert middle.std() == pytest.approx(34 / np.sqrt(3) / (2 * np.sqrt(np.pi) * 4), rel=0.05)


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_brightness_and_contrast_are_those_of_pillow(mode):
    shape = (5, 12, 9) if mode == "L" else (5, 12, 9, 3)
    many = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    factors = np.random.default_rng(1).uniform(0.6, 1.4, (5, 2))
    for before, after, (brightness, contrast) in zip(many, jittered(many, factors), factors, strict=True):
        bright = ImageEnhance.Brightness(Image.fromarray(before)).enhance(brightness)
        expected = np.asarray(ImageEnhance.Contrast(bright).enhance(contrast)).astype(int)
        # Pillow cuts fractions off after each of the two, and rounds the mean.
        assert abs(expected - after).max() <= 2


@pytest.mark.parametrize(("key", "number"), [("brightness_change", 0), ("contrast_change", 1)])
def test_a_factor_differs_from_one_by_at_most_what_is_asked_for(key, number):
    # A black half and a grey one of 100: brightness moves the grey, contrast the difference about the mean of 50.
    half = np.zeros((1000, 4, 4), np.uint8)
    half[:, 2:] = 100
    recipe = ImageAugmentationRecipe(**STILL, **{key: 0.2})
    changed = ImageAugmentation(recipe, rows=1000, seed=1)(half, epoch=0, rows=np.arange(1000)).astype(int)
    found = changed[:, 3, 3]
    largest = (20, 10)[number]
    assert (found.min(), found.max()) == (100 - largest, 100 + largest)
    assert abs(found.mean() - 100) < 1


@pytest.mark.parametrize("shape", [(12, 9), (12, 9, 3)])
def test_a_rectangle_of_the_other_image_stands_in_a_mixed_one_with_its_share(shape):
    generator = np.random.default_rng(0)
    ours, others = np.zeros((500, *shape), np.uint8), np.full((500, *shape), 7, np.uint8)
    sides = generator.random(500)
    result, shares = mixed(ours, others, generator.random((500, 2)), sides)
    pixels = (result == 7).reshape(500, 12, 9, -1)
    assert (pixels.all(-1) == pixels.any(-1)).all()
    np.testing.assert_allclose(pixels.mean((1, 2, 3)), shares)
    assert (shares <= sides**2).all()
    assert shares.max() > 0.5
    lines, columns = pixels[..., 0].any(2).sum(1), pixels[..., 0].any(1).sum(1)
    assert (lines * columns == pixels[..., 0].sum((1, 2))).all()


def test_a_rectangle_stands_about_its_centre():
    result, shares = mixed(
        np.zeros((1, 12, 9), np.uint8), np.ones((1, 12, 9), np.uint8), np.array([[0.5, 0.99]]), np.array([0.5])
    )
    expected = np.zeros((12, 9), np.uint8)
    expected[3:9, 6:9] = 1
    assert np.array_equal(result[0], expected)
    assert shares[0] == 18 / 108


def test_partners_are_any_rows_and_the_share_asked_for_is_mixed():
    cutting = ImageAugmentation(ImageAugmentationRecipe(**STILL, cutmix=CUTMIX), rows=4000, seed=1)
    others, centres, sides = cutting.partners(epoch=0, rows=np.arange(4000))
    assert 0.47 < (sides > 0).mean() < 0.53
    assert len(set(others.tolist())) > 2300  # of draws with replacement, 63 % differ
    assert (centres.min(), centres.max()) == pytest.approx((0, 1), abs=0.01)
    # Beta(1, 1) is uniform: the quarters of the areas are as frequent.
    counts, _ = np.histogram(sides[sides > 0] ** 2, bins=4, range=(0, 1))
    assert counts.min() > 420


def test_a_mixed_batch_has_the_pixels_and_labels_of_both_rows():
    flat = np.repeat(np.arange(50, dtype=np.uint8), 36).reshape(50, 6, 6)
    labels = np.arange(50) % 10
    cutting = augmentation(**STILL, cutmix={"probability": 1.0, "alpha": 1.0})
    processor = PixelSequenceImageProcessor(size={"height": 6, "width": 6}, image_mean=[0.0], image_std=[1.0])
    rows = np.arange(50)
    batch = PixelData(flat, labels, processor, cutting, 10).batch(rows, epoch=2)
    partners, _, _ = cutting.partners(epoch=2, rows=rows)
    pixels = (batch["pixel_values"][..., 0] * 255).round().numpy()
    shares = (pixels == partners[:, None]).mean(1)
    assert (shares[partners != rows] > 0).sum() > 25
    assert ((pixels == rows[:, None]) | (pixels == partners[:, None])).all()
    for row in rows[partners != rows]:
        expected = np.zeros(10)
        expected[labels[row]] += 1 - shares[row]
        expected[labels[partners[row]]] += shares[row]
        np.testing.assert_allclose(batch["labels"][row], expected, atol=1e-6)


class Scores(torch.nn.Module):
    """What of a model a loss reads."""

    def forward(self, pixel_values):
        return type("Output", (), {"logits": pixel_values})


def test_the_loss_of_mixed_labels_is_the_weighted_mean_of_both_cross_entropies():
    torch.manual_seed(0)
    logits, own, others = torch.randn(6, 10), torch.randint(10, (6,)), torch.randint(10, (6,))
    shares = np.array([0.0, 0.25, 0.5, 0.75, 1.0, 0.1])
    labels = mixed_labels(own, others, shares, 10)
    assert labels.dtype == torch.float32
    torch.testing.assert_close(labels.sum(1), torch.ones(6))
    weights = torch.from_numpy(shares).float()
    both = [F.cross_entropy(logits, target, reduction="none") for target in (own, others)]
    expected = ((1 - weights) * both[0] + weights * both[1]).mean()
    torch.testing.assert_close(mixed_loss(Scores(), {"pixel_values": logits, "labels": labels}, 0), expected)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"cutmix": {"probability": 1.5, "alpha": 1.0}}, r"augmentation\.cutmix\.probability"),
        ({"cutmix": {"probability": 0.5}}, r"augmentation\.cutmix\.alpha is missing"),
        ({"cutmix": {"probability": 0.5, "alfa": 1.0}}, r"Did you mean 'alpha'\?.* in augmentation\.cutmix"),
        ({"elastic": {"alpha_pixels": 34.0, "sigma_pixels": 0}}, r"augmentation\.elastic\.sigma_pixels"),
        ({"elastic": None}, r"augmentation\.elastic is null, expected a value; or leave the key out"),
        ({"brightness_change": 1.0}, r"augmentation\.brightness_change"),
    ],
)
def test_an_impossible_key_is_refused_in_one_line(tmp_path, changes, complaint):
    changes = {f"augmentation__{key}": value for key, value in changes.items()}
    with pytest.raises(RecipeError, match=complaint) as refused:
        load_recipe(tiny_recipe(tmp_path, **changes))
    assert "\n" not in str(refused.value)


def test_a_share_of_nothing_is_refused(tmp_path):
    with pytest.raises(
        RecipeError, match=r"interpolation_probability is 0.5, but nothing interpolates; give rotate_deg"
    ):
        load_recipe(tiny_recipe(tmp_path, augmentation=STILL | {"interpolation_probability": 0.5}))


def test_a_batch_in_which_nothing_is_mixed_keeps_its_images_and_labels():
    processor = PixelSequenceImageProcessor(size={"height": 6, "width": 6})
    hardly = augmentation(**ALL | {"cutmix": {"probability": 1e-9, "alpha": 1.0}})
    plain = augmentation(**{key: value for key, value in ALL.items() if key != "cutmix"})
    rows, labels = np.arange(50), np.arange(50) % 10
    found = PixelData(images(), labels, processor, hardly, 10).batch(rows, epoch=0)
    expected = PixelData(images(), labels, processor, plain).batch(rows, epoch=0)
    assert torch.equal(found["pixel_values"], expected["pixel_values"])
    assert torch.equal(found["labels"], F.one_hot(expected["labels"], 10).float())
