"""Training on series and texts: what a checkpoint of them holds, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.tiny import tiny_language_model, tiny_series, tiny_series_recipe, tiny_texts, tiny_texts_recipe
from urzoo import zoo
from urzoo.data import hold_out
from urzoo.errors import CheckpointError, DataError, RecipeError
from urzoo.evaluation.sequence_classification import resampled
from urzoo.hub.card import check_card
from urzoo.training import load_recipe, train
from urzoo.training.kinds.images import PixelData
from urzoo.training.kinds.series import SeriesAugmentation, SeriesAugmentationRecipe, SeriesData, SeriesRecipe
from urzoo.training.kinds.texts import TextRecipe, TokenData
from urzoo.training.log import TrainingLine, ValidationLine, read_log
from urzoo.training.rows import build_model
from urzoo.zoo.schema import read_training_summary


@pytest.fixture(scope="module")
def series_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("series")
    return train(tiny_series_recipe(folder), runs=folder, progress=False, data=tiny_series())


@pytest.fixture(scope="module")
def text_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    return train(tiny_texts_recipe(folder), runs=folder, progress=False, data=tiny_texts())


def scores(logits: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    log_probabilities = torch.from_numpy(logits).double().log_softmax(-1).numpy()
    return float((logits.argmax(1) == labels).mean()), float(-log_probabilities[np.arange(len(labels)), labels].mean())


def test_a_checkpoint_of_series_has_the_scores_it_claims_at_every_rate(series_checkpoint):
    summary = read_training_summary(series_checkpoint / "training.json")
    _, validation = hold_out(tiny_series(), 10, 0)
    model = zoo.load(series_checkpoint)
    for suffix, scale in (("", 1.0), ("_time_scale_2", 2.0), ("_time_scale_0.5", 0.5)):
        with torch.no_grad():
            rows = [torch.from_numpy(resampled(one, scale))[None] for one in validation.sequences]
            logits = torch.cat([model(inputs_embeds=row).logits for row in rows]).numpy()
        accuracy, cross_entropy = scores(logits, validation.labels)
        assert summary.validation[f"accuracy{suffix}"] == pytest.approx(accuracy)
        assert summary.validation[f"cross_entropy{suffix}"] == pytest.approx(cross_entropy, rel=1e-5)
    assert "by a factor drawn between 0.5 and 2" in (series_checkpoint / "README.md").read_text()
    check_card(series_checkpoint, [])


def test_a_checkpoint_of_texts_has_the_scores_it_claims_on_whole_texts(text_checkpoint):
    summary = read_training_summary(text_checkpoint / "training.json")
    _, validation = hold_out(tiny_texts(), 10, 0)
    model, tokenizer = zoo.load(text_checkpoint), zoo.load_tokenizer(text_checkpoint)
    assert tokenizer.padding_side == "right"
    with torch.no_grad():
        rows = [tokenizer(text, return_tensors="pt")["input_ids"].long() for text in validation.texts]
        logits = torch.cat([model(input_ids=row).logits for row in rows]).numpy()
    assert max(row.shape[1] for row in rows) > 12
    accuracy, cross_entropy = scores(logits, validation.labels)
    assert summary.validation["accuracy"] == pytest.approx(accuracy)
    assert summary.validation["cross_entropy"] == pytest.approx(cross_entropy, rel=1e-5)


def test_a_checkpoint_says_which_weights_it_began_with(text_checkpoint):
    base = zoo.info(text_checkpoint.parents[1] / "base" / "checkpoint")
    initial = read_training_summary(text_checkpoint / "training.json").initialised_from
    assert initial is not None
    assert (initial.name, initial.weights_sha256) == ("base", base.weights_sha256)
    assert base.weights_sha256[:12] in (text_checkpoint / "README.md").read_text()
    check_card(text_checkpoint, [])


def test_training_begins_with_the_given_embedding_and_layers(tmp_path):
    recipe = load_recipe(tiny_texts_recipe(tmp_path))
    initial = recipe.parents(tmp_path).initial
    assert initial is not None
    base = dict(zoo.load(tmp_path / "base" / "checkpoint").named_parameters())
    tokenizer = zoo.load_tokenizer(tmp_path / "base" / "checkpoint")
    model = build_model(recipe, ["neg", "pos"], vocab_size=len(tokenizer), pad_token_id=0)
    drawn = {name: value.detach().clone() for name, value in model.named_parameters()}
    initial.write_into(model, tokenizer)
    for name, value in model.named_parameters():
        given = name in base and name.startswith(("model.embed_tokens", "model.layers"))
        assert torch.equal(value, base[name] if given else drawn[name]), name
        assert given == (not name.endswith("_reverse") and not name.startswith("head"))


def test_time_steps_without_padding_are_counted(series_checkpoint):
    lines = read_log(series_checkpoint / "log.jsonl")
    assert {line.kind for line in lines} == {"training", "validation"}
    assert all(line.tokens_per_second > 0 for line in lines if isinstance(line, TrainingLine))
    assert {line.weights for line in lines if isinstance(line, ValidationLine)} == {"averaged"}


def test_label_smoothing_changes_the_training_loss_and_not_the_validation(tmp_path):
    first = {}
    for smoothing in (0.0, 0.5):
        folder = tmp_path / str(smoothing)
        folder.mkdir()
        changes = {"run__label_smoothing": smoothing, "cadence__log_every_steps": 1}
        place = train(tiny_series_recipe(folder, **changes), runs=folder, progress=False, data=tiny_series())
        lines = read_log(place / "log.jsonl")
        first[smoothing] = next(line.loss for line in lines if isinstance(line, TrainingLine))
    # The first loss is of the same weights and batch, so that it differs by the smoothing alone.
    assert first[0.0] != first[0.5]
    assert first[0.5] == pytest.approx(np.log(20), abs=0.5)


def augmentation(**changes: float) -> SeriesAugmentation:
    still = {"time_scale_min": 1.0, "time_scale_max": 1.0, "amplitude_deviation": 0.0, "noise_deviation": 0.0}
    return SeriesAugmentation(SeriesAugmentationRecipe(**{**still, **changes}), seed=1)


def test_a_series_is_unchanged_where_nothing_is_asked_for():
    series = tiny_series().sequences[0]
    assert np.array_equal(augmentation()(series, epoch=3, row=0), series)


def test_what_a_series_gets_depends_on_its_epoch_and_row_alone():
    change = augmentation(time_scale_min=0.5, time_scale_max=2.0, amplitude_deviation=0.1, noise_deviation=0.1)
    series = tiny_series().sequences[0]
    first = change(series, epoch=0, row=3)
    change(series, epoch=0, row=4)
    assert np.array_equal(change(series, epoch=0, row=3), first)
    lengths = {len(change(series, epoch=epoch, row=row)) for epoch in range(5) for row in range(20)}
    assert min(lengths) < len(series) < max(lengths)
    assert min(lengths) >= len(series) // 2
    assert max(lengths) <= 2 * len(series)


def test_a_batch_of_series_is_padded_and_masked():
    split = tiny_series()
    batch = SeriesData(split.sequences, split.labels).batch(np.array([3, 1]), epoch=0)
    lengths = [len(split.sequences[row]) for row in (3, 1)]
    assert batch["attention_mask"].sum(1).tolist() == lengths
    assert batch["inputs_embeds"].shape == (2, max(lengths), 3)
    for row, (number, length) in enumerate(zip((3, 1), lengths, strict=True)):
        assert np.array_equal(batch["inputs_embeds"][row, :length].numpy(), split.sequences[number])
        assert not batch["inputs_embeds"][row, length:].any()
    assert batch["labels"].tolist() == [3, 1]


def test_a_long_text_is_cut_to_a_stretch_that_changes_with_the_epoch():
    tokens = [np.arange(100, dtype=np.int32), np.arange(5, dtype=np.int32), np.zeros(0, np.int32)]
    data = TokenData(tokens, np.zeros(3, np.int64), padding=999, max_tokens=10, seed=0)
    starts = set()
    for epoch in range(20):
        batch = data.batch(np.arange(3), epoch=epoch)
        assert batch["input_ids"].shape == (3, 10)
        assert batch["attention_mask"].sum(1).tolist() == [10, 5, 0]
        assert batch["input_ids"][1].tolist() == [0, 1, 2, 3, 4, *[999] * 5]
        start = int(batch["input_ids"][0, 0])
        assert batch["input_ids"][0].tolist() == list(range(start, start + 10))
        starts.add(start)
    assert len(starts) > 10


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"task": "imdb", "data__name": "imdb"}, "a matter of text-classification"),
        ({"task": "character_trajectories_half"}, "scored on; name that"),
        ({"model__input_size": 2}, "model.input_size is 2, but character-trajectories has 3"),
        ({"augmentation__time_scale_min": 3.0}, "expected at most time_scale_max"),
        ({"model__pooling": ["mean", "mean"]}, "expected each of them once"),
        ({"model__pooling": ["median"]}, "model.pooling"),
        ({"data__split": "test"}, "data.split is 'test'"),
    ],
)
def test_a_recipe_of_series_that_cannot_be_is_refused_in_one_line(tmp_path, changes, expected):
    with pytest.raises(RecipeError) as caught:
        load_recipe(tiny_series_recipe(tmp_path, **changes)).check()
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_text_recipe_of_another_task_is_refused(tmp_path):
    path = tiny_texts_recipe(tmp_path, task="character_trajectories", data__name="character-trajectories")
    with pytest.raises(RecipeError, match="a matter of series-classification"):
        load_recipe(path).check()


def test_recipes_are_told_apart_by_their_sections(tmp_path):
    assert type(load_recipe(tiny_series_recipe(tmp_path))) is SeriesRecipe
    assert type(load_recipe(tiny_texts_recipe(tmp_path))) is TextRecipe
    assert issubclass(PixelData, torch.utils.data.Dataset)


def test_rows_without_a_label_are_refused(tmp_path):
    split = tiny_texts()
    split.columns["label"][5] = -1
    with pytest.raises(DataError, match=r"has a row without a label"):
        train(tiny_texts_recipe(tmp_path), runs=tmp_path, progress=False, data=split)


def test_an_initial_checkpoint_that_is_not_there_is_named_with_the_remedy(tmp_path):
    with pytest.raises(RecipeError, match=r"neither .* nor a shipped checkpoint of that name. Train its recipe first"):
        train(tiny_texts_recipe(tmp_path, initialise_from="bass"), runs=tmp_path, progress=False, data=tiny_texts())


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"hidden_size": 5}, "has the shape"),
        ({"num_layers": 2}, "this model has no such part"),
    ],
)
def test_an_initial_checkpoint_that_does_not_fit_is_refused(tmp_path, fields, expected):
    tiny_language_model(tmp_path / "base" / "checkpoint", **fields)
    with pytest.raises(RecipeError, match=expected):
        train(tiny_texts_recipe(tmp_path), runs=tmp_path, progress=False, data=tiny_texts())


def test_an_initial_checkpoint_with_another_tokenizer_is_refused(tmp_path):
    other = tiny_language_model(tmp_path / "other" / "checkpoint")
    content = json.loads((other / "tokenizer.json").read_text())
    content["model"]["merges"] = content["model"]["merges"][:-1]
    content["model"]["vocab"].popitem()
    (other / "tokenizer.json").write_text(json.dumps(content))
    recipe = tiny_texts_recipe(tmp_path, tokenizer__checkpoint=str(other))
    with pytest.raises(RecipeError, match="whose tokenizer is not that of the recipe"):
        train(recipe, runs=tmp_path, progress=False, data=tiny_texts())


def test_a_damaged_initial_checkpoint_is_refused(tmp_path):
    recipe = tiny_texts_recipe(tmp_path)
    weights = tmp_path / "base" / "checkpoint" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-5])
    with pytest.raises(CheckpointError, match="truncated or damaged"):
        train(recipe, runs=tmp_path, progress=False, data=tiny_texts())
