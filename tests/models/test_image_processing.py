import json

import numpy as np
import PIL.Image
import pytest
import torch
from transformers import AutoImageProcessor
from transformers.image_utils import load_image

from urzoo.errors import UsageError
from urzoo.models import PixelSequenceImageProcessor, pixel_permutation


@pytest.fixture
def images() -> np.ndarray:
    return np.random.RandomState(0).randint(0, 256, (5, 28, 28)).astype(np.uint8)


@pytest.fixture
def colours() -> np.ndarray:
    return np.random.RandomState(1).randint(0, 256, (5, 32, 32, 3)).astype(np.uint8)


@pytest.fixture
def permuting() -> PixelSequenceImageProcessor:
    return PixelSequenceImageProcessor(image_mean=[0.1307], image_std=[0.3081], pixel_order=pixel_permutation(784, 3))


def values(processor, images):
    return processor(images, return_tensors="pt")["pixel_values"]


def test_a_pixel_is_rescaled_normalised_and_put_in_order(images, permuting):
    got = values(permuting, images)
    assert got.shape == (5, 784, 1)
    assert got.dtype == torch.float32
    flat = images.reshape(5, 784)[:, permuting.pixel_order]
    assert np.array_equal(got[..., 0].numpy(), ((flat / 255 - 0.1307) / 0.3081).astype(np.float32))


def test_the_permutation_is_fixed_by_its_seed():
    assert pixel_permutation(8, 0) == [6, 2, 1, 7, 3, 0, 5, 4]
    assert pixel_permutation(784, 0) != pixel_permutation(784, 1)


def test_every_way_in_gives_the_same_bits(images, permuting, tmp_path):
    expected = values(permuting, images)
    paths = []
    for index, image in enumerate(images):
        paths.append(tmp_path / f"{index}.png")
        PIL.Image.fromarray(image).save(paths[-1])
    ways = {
        "image objects": [PIL.Image.fromarray(image) for image in images],
        "as the pipelines load them": [load_image(str(path)) for path in paths],
        "with transparency": [PIL.Image.fromarray(image).convert("RGBA") for image in images],
        "paths": paths,
        "strings": [str(path) for path in paths],
        "arrays": list(images),
        "with a channel": images[..., None],
        "channels first": images[:, None],
        "grey as colour": np.repeat(images[..., None], 3, axis=-1),
        "torch": torch.from_numpy(images),
        "64-bit integers": images.astype(np.int64),
        "floats": images.astype(np.float32),
        "floats up to 1": images.astype(np.float32) / np.float32(255),
        "floats a hair above 1": images / 254.9999,
        "bytes of files": [path.read_bytes() for path in paths],
        "image objects of floats": [PIL.Image.fromarray(image.astype(np.float32)) for image in images],
    }
    for way, batch in ways.items():
        assert torch.equal(values(permuting, batch), expected), way
    assert torch.equal(values(permuting, paths[2]), expected[2:3])
    assert torch.equal(values(permuting, images[2]), expected[2:3])


def test_colour_keeps_three_channels_a_step(colours):
    processor = PixelSequenceImageProcessor(
        size={"height": 32, "width": 32}, do_grayscale=False, image_mean=[0.4, 0.5, 0.6], image_std=[0.2, 0.3, 0.4]
    )
    got = values(processor, colours)
    assert got.shape == (5, 1024, 3)
    for batch in ([PIL.Image.fromarray(image) for image in colours], colours.transpose(0, 3, 1, 2), colours / 1.0):
        assert torch.equal(values(processor, batch), got)
    assert torch.equal(values(processor, colours[0].transpose(2, 0, 1)), got[:1])
    grey = PIL.Image.fromarray(colours[0]).convert("L")
    assert torch.equal(values(processor, grey), values(processor, grey.convert("RGB")))


def test_colour_becomes_grey_as_pil_does_it(colours):
    processor = PixelSequenceImageProcessor(size={"height": 32, "width": 32})
    expected = np.stack([np.asarray(PIL.Image.fromarray(image).convert("L")) for image in colours])
    for batch in (colours, [PIL.Image.fromarray(image) for image in colours], colours.astype(np.float64)):
        assert torch.equal(values(processor, batch), values(processor, expected))


def test_the_file_holds_all_that_decides(images, permuting, tmp_path):
    permuting.save_pretrained(tmp_path)
    content = json.loads((tmp_path / "preprocessor_config.json").read_text())
    assert content["pixel_order"] == permuting.pixel_order
    again = AutoImageProcessor.from_pretrained(tmp_path)
    assert type(again) is PixelSequenceImageProcessor
    assert torch.equal(values(again, images), values(permuting, images))


@pytest.mark.parametrize("spoilt", [np.nan, np.inf, -np.inf])
def test_pixels_that_are_no_numbers_are_refused(images, permuting, spoilt):
    batch = images.astype(np.float32)
    batch[3, 4, 5] = spoilt
    with pytest.raises(UsageError, match="NaN or infinity"):
        permuting(batch)
    with pytest.raises(UsageError, match="image 3 holds NaN or infinity"):
        permuting(list(batch))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (PIL.Image.new("L", (0, 0)), "image 0 is empty, expected an image with pixels"),
        (PIL.Image.new("I;16", (28, 28)), "image 0 has the mode 'I;16' with more than 8 bits"),
        (np.zeros((0, 28, 28), np.uint8), "images is empty"),
        (np.zeros((28, 27, 5), np.uint8)[None], r"images has the shape \(1, 28, 27, 5\), expected \(28, 28\)"),
        (np.zeros((3, 40, 40), np.uint8), "three grey images or one of three colours"),
        ([np.zeros((2, 28, 28), np.uint8)], "image 0 of the list is a batch of 2"),
        (np.full((28, 28), 300), "values from 300 to 300, expected 0 to 255"),
        (np.eye(28, dtype=np.uint16) * 40000, "values from 0 to 40000, expected 0 to 255; for 16 bits"),
        (np.eye(28, dtype=np.uint8), "no other numbers than 0 and 1"),
        (PIL.Image.fromarray(np.eye(28, dtype=np.uint8)), "image 0 holds no other numbers than 0 and 1"),
        (np.full((28, 28), 1.2), r"floats from 1.2 to 1.2, which are neither .* give images.clip\(0, 1\)"),
        (np.full((28, 28), -0.5), "values from -0.5 to -0.5, expected floats from 0 to 1"),
        ([np.full((28, 28), 0.5), np.full((28, 28), 99.5)], "image 0 ends at 0.5 where others .* go to 99.5"),
        (np.full((28, 28), "x"), "expected whole numbers"),
        ([], "images is an empty list"),
        ([3], "image 0 is a int, expected an image, a path"),
        (b"no image", "image 0 cannot be read as an image"),
        ("absent.png", "there is no image file 'absent.png'"),
        ("http://\x01", "cannot be read as an image: Invalid non-printable ASCII character in URL"),
    ],
)
def test_an_image_that_cannot_be_meant_is_refused_in_one_line(permuting, image, message):
    with pytest.raises(UsageError, match=message) as caught:
        permuting(image)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_image_is_refused(permuting, tmp_path):
    file = tmp_path / "text.png"
    file.write_text("not an image")
    with pytest.raises(UsageError, match=r"text.png' cannot be read as an image"):
        permuting(file)
    PIL.Image.new("L", (28, 28), 7).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:40])
    with pytest.raises(UsageError, match=r"cut.png' cannot be read as an image"):
        permuting(tmp_path / "cut.png")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"pixelorder": [0]}, "unknown image processor key 'pixelorder'. Did you mean 'pixel_order'"),
        ({"pixel_order": [0, 0, 1]}, "expected each of 0 to 783 once"),
        ({"image_mean": [0.1, 0.2]}, "image_mean is .*expected 1 finite numbers"),
        ({"image_std": [0.0]}, "image_std is .*above 0"),
        ({"size": {"shortest_edge": 28}}, "size is .*'height'"),
        ({"resample": 9}, r"resample is 9, expected the number of a filter: 0 \(nearest\), 1 \(lanczos\)"),
        ({"resample": "bilinear"}, "resample is 'bilinear', expected the number"),
    ],
)
def test_an_impossible_field_is_refused(fields, message):
    with pytest.raises(UsageError, match=message):
        PixelSequenceImageProcessor(**fields)


def test_a_call_takes_no_options_that_would_change_the_preprocessing(permuting, images):
    with pytest.raises(UsageError, match="'do_rescale' is not an argument of a call"):
        permuting(images, do_rescale=False)


def test_a_processor_of_scaled_images_takes_floats_up_to_1_alone(images):
    scaled = PixelSequenceImageProcessor(do_rescale=False)
    got = values(scaled, images.astype(np.float64) / 255)
    assert torch.equal(got, values(PixelSequenceImageProcessor(), images))
    for batch in (images, PIL.Image.fromarray(images[0])):
        with pytest.raises(UsageError, match="holds uint8, expected floats from 0 to 1, because do_rescale is False"):
            scaled(batch)
    with pytest.raises(UsageError, match="values from 0 to 255, expected 0 to 1, because do_rescale is False"):
        scaled(images.astype(np.float32))


def test_black_and_white_is_read_as_such_whatever_its_type(permuting):
    drawn = np.eye(28) > 0
    expected = values(permuting, drawn.astype(np.uint8) * 255)
    ways = (drawn, drawn.astype(np.float16), drawn * 1.0000001, PIL.Image.fromarray(drawn), torch.from_numpy(drawn))
    for way in (*ways, [drawn], PIL.Image.fromarray(drawn.astype(np.float32))):
        assert torch.equal(values(permuting, way), expected)


def test_a_dark_image_among_others_is_dark(images, permuting):
    images[1] = np.eye(28)
    got = values(permuting, images)
    assert torch.equal(values(permuting, list(images)), got)
    assert got[1].max() < got[0].max() / 100
    with pytest.raises(UsageError, match="images ends at 1 where others of the same call go to 255"):
        permuting(images.astype(np.float32))


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_an_image_is_turned_upright_whatever_way_it_comes(images, permuting, tmp_path, orientation):
    stored = PIL.Image.fromarray(images[0])
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "turned.png"
    stored.save(path, exif=exif)
    expected = values(permuting, np.rot90(images[0], {3: 2, 6: 3, 8: 1}[orientation]))
    for way in (path, str(path), path.read_bytes(), PIL.Image.open(path), [path], load_image(str(path))):
        assert torch.equal(values(permuting, way), expected)
    assert not torch.equal(expected, values(permuting, images[0]))


@pytest.mark.parametrize("size", [(61, 40), (9, 30), (28, 29)])
def test_an_image_of_another_size_is_resized_as_pillow_does_it(size, tmp_path):
    processor = PixelSequenceImageProcessor(size={"height": 32, "width": 32}, do_grayscale=False, resample=3)
    photograph = np.random.RandomState(2).randint(0, 256, (*size, 3)).astype(np.uint8)
    image = PIL.Image.fromarray(photograph)
    image.save(tmp_path / "photograph.png")
    expected = values(processor, np.asarray(image.resize((32, 32), PIL.Image.Resampling.BICUBIC)))
    ways = (image, tmp_path / "photograph.png", photograph, photograph / 255, torch.from_numpy(photograph)[None])
    for way in (*ways, photograph.transpose(2, 0, 1)):
        assert torch.equal(values(processor, way), expected)
    fractions = values(processor, photograph * 0.9)
    assert (fractions - expected * 0.9).abs().max() < 0.15  # the filter overshoots at either end


def test_a_photograph_as_a_tensor_is_one_image_in_a_list(permuting):
    photograph = np.random.RandomState(2).randint(0, 256, (50, 40, 3)).astype(np.uint8)
    assert torch.equal(values(permuting, [photograph.transpose(2, 0, 1)]), values(permuting, photograph))


def test_images_of_another_size_are_refused_where_the_processor_does_not_resize():
    processor = PixelSequenceImageProcessor(do_resize=False)
    with pytest.raises(
        UsageError, match=r"image 0 is 30 x 32 pixels \(height x width\), expected 28 x 28.*do_resize=True"
    ):
        processor(PIL.Image.new("L", (32, 30)))


@pytest.mark.parametrize("shape", [(40, 40), (28, 28), (40, 40, 3), (28, 28, 3)])
def test_an_image_of_bytes_does_not_depend_on_the_others_of_its_array(permuting, shape):
    draw = np.random.default_rng(0)
    of_bytes, other = draw.integers(0, 256, shape, dtype=np.uint8), draw.random(shape, dtype=np.float32)
    both = permuting(np.stack([(of_bytes / 255).astype(np.float32), other]))["pixel_values"]
    assert np.array_equal(both[0], permuting(of_bytes)["pixel_values"][0])
    assert np.array_equal(both[1], permuting(other)["pixel_values"][0])
