import numpy as np
import pytest
import torch

from urzoo.models import PixelSequenceImageProcessor
from urzoo.training.batches import EpochOrder, LengthOrder
from urzoo.training.kinds.images import ImageAugmentation, ImageAugmentationRecipe, PixelData, erased, mapped


def augmentation(**changes):
    recipe = {"shift_pixels": 2, "flip_horizontal": True} | changes
    return ImageAugmentation(ImageAugmentationRecipe(**recipe), rows=50, seed=1)


def images(rows=50):
    return np.random.default_rng(0).integers(1, 256, size=(rows, 6, 6), dtype=np.uint8)


def test_an_epoch_has_each_row_at_most_once_and_whole_batches():
    order = EpochOrder(50, batch_size=8, seed=0)
    rows = [row for _, row in order]
    assert len(order) == len(rows) == len(set(rows)) == 48


def test_the_order_is_a_function_of_seed_and_epoch():
    order, other = EpochOrder(50, batch_size=8, seed=0), EpochOrder(50, batch_size=8, seed=0)
    first = list(order)
    order.epoch = other.epoch = 1
    assert list(order) == list(other)
    assert list(order) != first
    assert list(order) != list(EpochOrder(50, batch_size=8, seed=1))


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


def test_a_batch_is_what_the_processor_makes_of_each_image():
    processor = PixelSequenceImageProcessor(size={"height": 6, "width": 6})
    data = PixelData(images(), np.arange(50), processor)
    batch = data.__getitems__([4, 9])
    assert batch["pixel_values"].shape == (2, 36, 1)
    assert batch["labels"].tolist() == [4, 9]
    for position, row in enumerate((4, 9)):
        alone = processor(images()[row], return_tensors="pt")["pixel_values"][0]
        assert np.array_equal(batch["pixel_values"][position], alone)


def test_batches_of_similar_length_hold_each_row_at_most_once():
    lengths = np.random.default_rng(0).integers(1, 1000, size=103)
    order = LengthOrder(lengths, batch_size=8, pool_batches=4, seed=0)
    rows = np.array([row for _, row in order])
    assert len(order) == len(rows) == len(set(rows.tolist())) == 96

    def spread(rows):
        batches = lengths[rows].reshape(-1, 8)
        return (batches.max(1) - batches.min(1)).mean()

    by_chance = np.array([row for _, row in EpochOrder(103, batch_size=8, seed=0)])
    assert spread(rows) < spread(by_chance) / 2
    longest = lengths[rows].reshape(-1, 8).max(1)
    assert not (np.diff(longest) > 0).all()


def test_batches_of_similar_length_are_a_function_of_seed_and_epoch():
    lengths = np.arange(40)
    order, other = (LengthOrder(lengths, batch_size=4, pool_batches=5, seed=1) for _ in range(2))
    first = list(order)
    assert first == list(other)
    order.epoch = 1
    assert list(order) != first


def test_a_pool_of_one_batch_leaves_the_batches_to_chance():
    plain = EpochOrder(40, batch_size=4, seed=1)
    assert list(LengthOrder(np.arange(40), batch_size=4, pool_batches=1, seed=1)) == list(plain)
