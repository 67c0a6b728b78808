"""Which shipped checkpoint is recommended for a task: by validation scores, never by the test split or from a study."""

import json
from pathlib import Path

import pytest

from tests.zoo.conftest import make_checkpoint
from tests.zoo.test_zoo import with_summary
from urzoo.errors import UsageError
from urzoo.evaluation import load_task, tasks
from urzoo.evaluation.recommended import recommended, recommended_checkpoints
from urzoo.zoo import checkpoints, info, lookup


@pytest.fixture
def zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(lookup, "CHECKPOINTS_FOLDER", tmp_path)
    return tmp_path


def ship(zoo: Path, name: str, **changes: object) -> None:
    with_summary(make_checkpoint(zoo / name), **changes)


def test_every_task_with_a_checkpoint_has_a_recommended_one():
    trained = {info(name).task for name in checkpoints()}
    evaluated = {name for name in tasks() if load_task(name).checkpoints_of in trained}
    assert set(recommended_checkpoints()) == evaluated | (trained - set(tasks()))
    assert set(recommended_checkpoints().values()) <= set(checkpoints())


def test_the_best_validation_score_wins_and_studies_do_not_count(zoo: Path):
    ship(zoo, "good", validation={"accuracy": 0.8})
    ship(zoo, "better", validation={"accuracy": 0.9})
    ship(zoo, "best-seed1-smnist", validation={"accuracy": 0.99})
    ship(zoo, "other", task="pmnist", validation={"accuracy": 0.999})
    assert recommended("smnist") == "better"
    assert recommended_checkpoints() == {"smnist": "better", "pmnist": "other"}


def test_a_language_model_for_others_to_begin_with_is_recommended_by_its_cross_entropy(zoo: Path):
    ship(zoo, "small-lm", task="imdb_language_model", validation={"cross_entropy": 4.5})
    ship(zoo, "large-lm", task="imdb_language_model", validation={"cross_entropy": 4.1})
    assert recommended_checkpoints() == {"imdb_language_model": "large-lm"}
    ship(zoo, "text", task="text", validation={"cross_entropy": 4.4, "word_perplexity": 180.0})
    assert recommended_checkpoints() == {"imdb_language_model": "large-lm", "text": "text", "wikitext103_pages": "text"}


def test_a_tie_is_broken_by_the_other_metrics(zoo: Path):
    ship(zoo, "a", validation={"accuracy": 0.9, "cross_entropy": 0.5})
    ship(zoo, "b", validation={"accuracy": 0.9, "cross_entropy": 0.4})
    ship(zoo, "c", validation={"cross_entropy": 0.1})
    assert recommended("smnist") == "b"


def test_another_sampling_rate_is_judged_by_its_own_score(zoo: Path):
    ship(zoo, "plain", task="character_trajectories", validation={"accuracy": 0.99, "accuracy_time_scale_2": 0.5})
    ship(zoo, "rates", task="character_trajectories", validation={"accuracy": 0.98, "accuracy_time_scale_2": 0.9})
    assert recommended("character_trajectories") == "plain"
    assert recommended("character_trajectories_double") == "rates"


def test_the_stream_is_judged_by_the_perplexity_that_training_records(zoo: Path):
    ship(zoo, "a", task="wikitext103", validation={"cross_entropy": 3.0, "word_perplexity": 50.0})
    ship(zoo, "b", task="wikitext103", validation={"cross_entropy": 3.1, "word_perplexity": 40.0})
    assert recommended("wikitext103") == "b"


def test_a_damaged_checkpoint_is_passed_over_and_an_unknown_task_is_not(zoo: Path):
    ship(zoo, "good")
    ship(zoo, "broken")
    (zoo / "broken" / "training.json").write_text(json.dumps({"task": "smnist"}))
    assert recommended("smnist") == "good"
    assert recommended("copy") is None
    with pytest.raises(UsageError, match="Did you mean 'smnist'"):
        recommended("smnst")
