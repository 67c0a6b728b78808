"""Training on series: what a checkpoint of them holds, and what is refused."""

from functools import partial

import numpy as np
import pytest
import torch

from tests.training.tiny import classification_scores, tiny_series, tiny_series_recipe
from urzoo import zoo
from urzoo.data import hold_out
from urzoo.errors import RecipeError
from urzoo.evaluation.sequence_classification import resampled
from urzoo.hub.card import check_card
from urzoo.training import load_recipe, train
from urzoo.training.batches import SequenceData
from urzoo.training.kinds.series import SeriesAugmentationRecipe, augmented
from urzoo.training.log import TrainingLine, ValidationLine, read_log
from urzoo.zoo.schema import read_training_summary

KIND = "series"


def test_a_checkpoint_of_series_has_the_scores_it_claims_at_every_rate(checkpoint):
    summary = read_training_summary(checkpoint / "training.json")
    _, validation = hold_out(tiny_series(), 10, 0)
    model = zoo.load(checkpoint)
    for suffix, scale in (("", 1.0), ("_time_scale_2", 2.0), ("_time_scale_0.5", 0.5)):
        with torch.no_grad():
            rows = [torch.from_numpy(resampled(one, scale))[None] for one in validation.sequences]
            logits = torch.cat([model(inputs_embeds=row).logits for row in rows]).numpy()
        accuracy, cross_entropy = classification_scores(logits, validation.labels)
        assert summary.validation[f"accuracy{suffix}"] == pytest.approx(accuracy)
        assert summary.validation[f"cross_entropy{suffix}"] == pytest.approx(cross_entropy, rel=1e-5)
    assert "by a factor drawn between 0.5 and 2" in (checkpoint / "README.md").read_text()
    check_card(checkpoint, [])


def test_time_steps_without_padding_are_counted(checkpoint):
    lines = read_log(checkpoint / "log.jsonl")
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


def augmentation(**changes: float) -> partial[np.ndarray]:
    still = {"time_scale_min": 1.0, "time_scale_max": 1.0, "amplitude_deviation": 0.0, "noise_deviation": 0.0}
    return partial(augmented, recipe=SeriesAugmentationRecipe(**{**still, **changes}), seed=1)


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
    batch = SequenceData("inputs_embeds", split.sequences, split.labels).batch(np.array([3, 1]), epoch=0)
    lengths = [len(split.sequences[row]) for row in (3, 1)]
    assert batch["attention_mask"].sum(1).tolist() == lengths
    assert batch["inputs_embeds"].shape == (2, max(lengths), 3)
    for row, (number, length) in enumerate(zip((3, 1), lengths, strict=True)):
        assert np.array_equal(batch["inputs_embeds"][row, :length].numpy(), split.sequences[number])
        assert not batch["inputs_embeds"][row, length:].any()
    assert batch["labels"].tolist() == [3, 1]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"task": "imdb", "data__name": "imdb"}, "which is text-classification; expected one of series-classification"),
        ({"task": "character_trajectories_half"}, "scored on; name that"),
        ({"model__input_size": 2}, "model.input_size is 2, but character-trajectories has 3"),
        ({"augmentation__time_scale_min": 3.0}, "expected at most time_scale_max"),
        ({"augmentation__time_scale_max": 1e30}, "key augmentation.time_scale_max is 1e+30: Input should be less than"),
        ({"further_time_scales": [2.0, 10**30]}, "key further_time_scales.1 is 1"),
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
