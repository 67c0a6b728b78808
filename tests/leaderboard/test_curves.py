from collections.abc import Callable
from pathlib import Path

import pytest

from urzoo.errors import CheckpointError
from urzoo.leaderboard.collect import collect, current_tasks
from urzoo.leaderboard.curves import learning_curves, validation_scores
from urzoo.leaderboard.schema import Curve


def curves(results: Path, checkpoints: Path) -> dict[tuple[str, str], Curve]:
    return learning_curves(collect(results).evidence, current_tasks(), {"shipped": checkpoints})


def test_a_curve_is_that_of_the_log_in_the_unit_of_the_task(example: Path, checkpoints: Path):
    found = curves(example, checkpoints)
    assert set(found) == {
        ("smnist", "urlstm-128-smnist"),
        ("smnist", "lstm-128-smnist"),
        ("pmnist", "urlstm-128-pmnist"),
    }
    curve = found["smnist", "urlstm-128-smnist"]
    assert curve.epochs == tuple(float(epoch) for epoch in range(1, 25))
    assert curve.values[0] == pytest.approx(100 * (0.985 - 0.4 * 0.75))


def test_the_curve_of_other_weights_is_not_shown(put: Callable[..., Path], results: Path, checkpoints: Path):
    put("urlstm-128-smnist", "smnist", model__weights_sha256="9" * 64)
    assert not curves(results, checkpoints)


def test_a_checkpoint_that_is_not_shipped_has_no_curve(put: Callable[..., Path], results: Path, checkpoints: Path):
    put("urlstm-128-smnist", "smnist", model__source="folder")
    assert not curves(results, checkpoints)


def test_the_averaged_weights_count_where_both_were_scored(tmp_path: Path):
    log = tmp_path / "log.jsonl"
    log.write_text(
        '{"kind": "validation", "epoch": 1.0, "weights": "averaged", "accuracy": 0.5}\n'
        '{"kind": "validation", "epoch": 1.0, "weights": "trained", "accuracy": 0.4}\n'
        '{"kind": "validation", "epoch": 2.0, "weights": "trained", "accuracy": 0.6}\n'
    )
    assert validation_scores(log, "accuracy") == [(1.0, 0.5), (2.0, 0.6)]


@pytest.mark.parametrize(
    "line",
    ["{", "[]", '{"kind": "validation", "accuracy": 0.5}', '{"kind": "validation", "epoch": 1, "accuracy": NaN}'],
)
def test_a_damaged_log_is_refused_by_file_and_line(tmp_path: Path, line: str):
    log = tmp_path / "log.jsonl"
    log.write_text('{"kind": "training", "epoch": 0.5}\n' + line + "\n")
    with pytest.raises(CheckpointError, match=r"log.jsonl line 2"):
        validation_scores(log, "accuracy")
