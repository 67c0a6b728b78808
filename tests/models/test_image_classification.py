import copy

import numpy as np
import PIL.Image
import pytest
import torch
from torch import nn
from transformers import AutoModelForImageClassification, pipeline

from urzoo import PixelSequenceImageProcessor, URLSTMConfig, URLSTMForImageClassification, URLSTMModel
from urzoo.errors import ShapeError, UsageError
from urzoo.models import pixel_permutation

DIGITS = [str(digit) for digit in range(10)]


def build(**fields) -> URLSTMForImageClassification:
    labels = dict(enumerate(DIGITS))
    config = URLSTMConfig(
        **{"hidden_size": 8, "id2label": labels, "label2id": {v: k for k, v in labels.items()}, **fields}
    )
    return URLSTMForImageClassification(config).eval()


@pytest.fixture
def pixels() -> torch.Tensor:
    return torch.randn(3, 49, 1)


def test_the_head_reads_the_last_state(pixels):
    model = build(num_layers=2)
    hidden = model.model(inputs_embeds=pixels).last_hidden_state
    expected = model.head.out_proj(torch.relu(model.head.dense(hidden[:, -1])))
    torch.testing.assert_close(model(pixels).logits, expected)


def test_a_bidirectional_head_reads_the_end_of_either_way(pixels):
    model = build(bidirectional=True)
    hidden = model.model(inputs_embeds=pixels).last_hidden_state
    ends = torch.cat([hidden[:, -1, :8], hidden[:, 0, 8:]], dim=-1)
    torch.testing.assert_close(model(pixels).logits, model.head.out_proj(torch.relu(model.head.dense(ends))))


def test_the_head_reads_what_the_pooling_names_in_its_order(pixels):
    model = build(bidirectional=True, pooling=["mean", "last", "max"])
    hidden = model.model(inputs_embeds=pixels).last_hidden_state
    ends = torch.cat([hidden[:, -1, :8], hidden[:, 0, 8:]], dim=-1)
    pooled = torch.cat([hidden.mean(dim=1), ends, hidden.amax(dim=1)], dim=-1)
    torch.testing.assert_close(model(pixels).logits, model.head.out_proj(torch.relu(model.head.dense(pooled))))


def test_the_recurrence_is_that_of_the_module(pixels):
    model = build()
    outputs, _ = model.model.layers[0].recurrence(pixels)
    torch.testing.assert_close(model.model(inputs_embeds=pixels).last_hidden_state, outputs)


@pytest.mark.parametrize("head_hidden_size", [0, 32])
def test_the_head_has_the_size_of_the_configuration(head_hidden_size, pixels):
    model = build(head_hidden_size=head_hidden_size)
    linear = [module.out_features for module in model.head.modules() if isinstance(module, nn.Linear)]
    assert sorted(linear) == sorted([10] + [head_hidden_size] * bool(head_hidden_size))
    assert model(pixels).logits.shape == (3, 10)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("gate", ["UR", "--", "C-"])
def test_every_cell_round_trips_through_a_checkpoint_bit_by_bit(cell, gate, pixels, tmp_path):
    model = build(cell=cell, gate=gate, max_time=49 if gate == "C-" else None)
    model.save_pretrained(tmp_path)
    again = AutoModelForImageClassification.from_pretrained(tmp_path)
    assert model.state_dict().keys() == again.state_dict().keys()
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    assert torch.equal(model(pixels).logits, again.eval()(pixels).logits)


@pytest.mark.parametrize("train_gate_bias", [True, False])
def test_the_gate_bias_stays_frozen_or_trained_through_a_checkpoint(train_gate_bias, tmp_path):
    model = build(train_gate_bias=train_gate_bias)
    model.save_pretrained(tmp_path)
    for each in (model, AutoModelForImageClassification.from_pretrained(tmp_path)):
        for name, parameter in each.named_parameters():
            assert parameter.requires_grad == (train_gate_bias or "forget_bias" not in name)


def test_the_gate_bias_is_drawn_by_the_model_and_from_the_seed():
    torch.manual_seed(7)
    first, second = (build(hidden_size=64) for _ in range(2))
    torch.manual_seed(7)
    again = build(hidden_size=64)
    name = "model.layers.0.recurrence.forget_bias_l0"
    bias = first.state_dict()[name]
    assert bias.sigmoid().min() < 0.2 < 0.8 < bias.sigmoid().max()
    assert not torch.equal(bias, second.state_dict()[name])
    for key, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[key]), key


def test_parameters_missing_in_a_checkpoint_are_initialised_and_the_others_kept(tmp_path):
    model = build(hidden_size=64)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(3.0)
    missing = {
        "model.layers.0.recurrence.forget_bias_l0",
        "model.layers.0.recurrence.weight_hh_l0",
        "head.out_proj.weight",
    }
    state = {name: value for name, value in model.state_dict().items() if name not in missing}
    model.save_pretrained(tmp_path, state_dict=state)
    again = URLSTMForImageClassification.from_pretrained(tmp_path)
    for name, value in again.state_dict().items():
        if name in missing:
            assert torch.isfinite(value).all()
            assert value.std() > 0.01
        else:
            assert (value == 3.0).all(), name
    blocks = again.state_dict()["model.layers.0.recurrence.weight_hh_l0"].chunk(4)
    for block in blocks:
        torch.testing.assert_close(block @ block.T, torch.eye(64), atol=1e-5, rtol=0)


def test_gradient_reaches_every_parameter(pixels):
    model = build(num_layers=2, bidirectional=True, layer_norm=True, residual=True).train()
    model(pixels, labels=torch.tensor([0, 5, 9])).loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_checkpointed_gradients_are_those_of_the_plain_run(pixels):
    plain = build(num_layers=2, head_dropout=0.0).train()
    checkpointed = copy.deepcopy(plain)
    checkpointed.activation_checkpointing_enable()
    labels = torch.tensor([1, 2, 3])
    for model in (plain, checkpointed):
        model(pixels, labels=labels).loss.backward()
    for (name, one), (_, other) in zip(plain.named_parameters(), checkpointed.named_parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, msg=name)


def test_hidden_states_are_the_input_and_each_layer(pixels):
    model = build(num_layers=3)
    states = model(pixels, output_hidden_states=True).hidden_states
    assert len(states) == 4
    assert torch.equal(states[0], pixels)
    assert [tuple(state.shape) for state in states[1:]] == [(3, 49, 8)] * 3
    assert model(pixels).hidden_states is None


def test_a_tuple_holds_what_the_output_holds(pixels):
    model = build()
    labels = torch.tensor([1, 2, 3])
    output = model(pixels, labels=labels)
    loss, logits = model(pixels, labels=labels, return_dict=False)
    assert torch.equal(output.loss, loss)
    assert torch.equal(output.logits, logits)


def test_the_loss_is_over_the_items_of_the_whole_accumulated_batch(pixels):
    model = build()
    labels = torch.tensor([1, 2, 3])
    expected = nn.functional.cross_entropy(model(pixels).logits, labels, reduction="sum") / 12
    torch.testing.assert_close(model(pixels, labels=labels, num_items_in_batch=12).loss, expected)


def test_the_chosen_back_end_is_the_one_that_runs(pixels):
    model = build(backend="reference")
    assert model.model.layers[0].recurrence.backend == "reference"
    with pytest.raises(UsageError, match=r"unknown backend 'referense'. Did you mean 'reference'"):
        build(backend="referense")(pixels)


def test_a_mask_leaves_pixels_out_of_the_pooling_too(pixels):
    model = build(pooling=["last", "mean", "max"])
    mask = (torch.arange(pixels.shape[1]) < 30).expand(pixels.shape[:2])
    masked, short = model(pixels, attention_mask=mask).logits, model(pixels[:, :30]).logits
    torch.testing.assert_close(masked, short, atol=1e-6, rtol=1e-5)


def test_a_bfloat16_model_takes_float32_pixels(pixels):
    logits = build().to(torch.bfloat16)(pixels).logits
    assert logits.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({}, UsageError, "pixel_values is missing"),
        ({"pixel_values": torch.zeros(2, 49, 3)}, ShapeError, r"\(2, 49, 3\), expected \(batch, time, 1\)"),
        ({"pixel_values": torch.zeros(2, 7, 7, 1)}, ShapeError, r"\(2, 7, 7, 1\), expected \(batch, time, 1\)"),
        ({"pixel_values": torch.zeros(2, 49, 1, dtype=torch.uint8)}, UsageError, "hold torch.uint8, expected floats"),
        (
            {"pixel_values": torch.zeros(2, 49, 1), "labels": torch.tensor([3, 10])},
            UsageError,
            "labels holds 10, expected class indices from 0 to 9",
        ),
    ],
)
def test_a_wrong_input_is_one_line(arguments, error, message):
    with pytest.raises(error, match=message):
        build()(**arguments)


def test_the_bare_model_needs_one_input_of_its_kind(pixels):
    model = URLSTMModel(URLSTMConfig(hidden_size=4))
    with pytest.raises(UsageError, match="exactly one of input_ids and inputs_embeds"):
        model()
    with pytest.raises(UsageError, match="this model has no vocabulary"):
        model(input_ids=torch.zeros(1, 2, dtype=torch.long))
    with pytest.raises(ShapeError, match=r"attention_mask has the shape \(3, 4\), expected \(3, 49\)"):
        model(inputs_embeds=pixels, attention_mask=torch.ones(3, 4))


def test_a_permutation_in_the_processor_is_what_the_model_reads(tmp_path):
    model = build()
    processor = PixelSequenceImageProcessor(pixel_order=pixel_permutation(784, 0))
    image = np.random.RandomState(0).randint(0, 256, (28, 28)).astype(np.uint8)
    permuted = torch.from_numpy(image.reshape(-1)[processor.pixel_order] / 255).float().reshape(1, 784, 1)
    torch.testing.assert_close(model(**processor(image, return_tensors="pt")).logits, model(permuted).logits)


def test_the_pipeline_takes_images_paths_and_lists(tmp_path):
    model = build()
    processor = PixelSequenceImageProcessor(pixel_order=pixel_permutation(784, 0))
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    images = [PIL.Image.fromarray(np.random.RandomState(i).randint(0, 256, (28, 28)).astype(np.uint8)) for i in (0, 1)]
    paths = [str(tmp_path / f"{index}.png") for index in (0, 1)]
    for image, path in zip(images, paths, strict=True):
        image.save(path)
    probabilities = model(**processor(images, return_tensors="pt")).logits.softmax(-1)

    for classify in (
        pipeline("image-classification", model=str(tmp_path)),
        pipeline("image-classification", model=model, image_processor=processor),
    ):
        for inputs in (images, paths):
            answers = classify(inputs, top_k=10)
            for row, answer in zip(probabilities, answers, strict=True):
                assert {entry["label"]: entry["score"] for entry in answer} == pytest.approx(
                    dict(zip(DIGITS, row.tolist(), strict=True)), abs=1e-6
                )
        assert classify(images[0])[0] == classify(images)[0][0]
        assert classify(paths[1], top_k=1)[0]["label"] == DIGITS[int(probabilities[1].argmax())]


def test_the_pipeline_reads_images_as_the_processor_does(tmp_path):
    model, processor = build(), PixelSequenceImageProcessor()
    classify = pipeline("image-classification", model=model, image_processor=processor)
    photograph = PIL.Image.fromarray(np.random.RandomState(0).randint(0, 256, (90, 70, 3)).astype(np.uint8))
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    photograph.save(tmp_path / "photograph.png", exif=exif)
    floats = PIL.Image.fromarray(np.random.RandomState(1).rand(28, 28).astype(np.float32))
    tensor = np.asarray(photograph).transpose(2, 0, 1)
    for image in (photograph, str(tmp_path / "photograph.png"), floats, np.eye(28) > 0, tensor):
        logits = model(**processor([image], return_tensors="pt")).logits[0].detach()
        assert classify(image, top_k=1)[0]["score"] == pytest.approx(logits.softmax(-1).max().item(), abs=1e-6)


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_more_than_8_bits_are_refused_by_the_pipeline_too(dtype, tmp_path):
    processor = PixelSequenceImageProcessor()
    classify = pipeline("image-classification", model=build(), image_processor=processor)
    image = PIL.Image.fromarray((np.arange(784).reshape(28, 28) * 80).astype(dtype))
    for way in (image, np.asarray(image)):
        with pytest.raises(UsageError, match=r"more than 8 bits|holds values from 0 to 62640"):
            processor(way)
        with pytest.raises(UsageError, match=r"more than 8 bits|holds values from 0 to 62640"):
            classify(way)
    image.save(tmp_path / "deep.tiff")
    with pytest.raises(UsageError, match=r"more than 8 bits|holds values from 0 to 62640"):
        classify(str(tmp_path / "deep.tiff"))


def test_pipelines_of_other_processors_are_as_they_were():
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

    config = ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, image_size=32)
    model = ViTForImageClassification(config).eval()
    classify = pipeline(
        "image-classification", model=model, image_processor=ViTImageProcessor(size={"height": 32, "width": 32})
    )
    image = PIL.Image.fromarray(np.random.RandomState(0).randint(0, 256, (40, 50, 3)).astype(np.uint8))
    expected = model(**classify.image_processor(image, return_tensors="pt")).logits.softmax(-1).max().detach()
    assert classify(image, top_k=1)[0]["score"] == pytest.approx(expected.item(), abs=1e-6)
