import json

import pytest

from urzoo import zoo
from urzoo.errors import CheckpointError
from urzoo.training.log import TrainingLine, ValidationLine, draw_learning_curve, read_log, selected, write_log
from urzoo.training.scores import ACCURACY, CROSS_ENTROPY, Score

LINES = [
    TrainingLine(
        step=50, epoch=0.5, loss=1.5, learning_rate=0.1, gradient_norm=2.0, tokens_per_second=9.0, wall_seconds=3.0
    ),
    ValidationLine.model_validate(
        {"step": 100, "epoch": 1.0, "wall_seconds": 9.0, "accuracy": 0.5, "cross_entropy": 1.25}
    ),
]


def test_a_log_reads_back_and_names_a_bad_line(tmp_path):
    path = tmp_path / "log.jsonl"
    write_log(path, LINES)
    assert read_log(path) == LINES
    path.write_text(path.read_text() + '{"kind": "training", "step": 3}\n')
    with pytest.raises(CheckpointError, match=r"line 3: key training\.epoch is missing"):
        read_log(path)


def test_the_log_of_a_long_run_reads_back(tmp_path):
    path = tmp_path / "log.jsonl"
    write_log(path, LINES * 20_000)
    assert path.stat().st_size > 5_000_000
    assert len(read_log(path)) == 40_000


@pytest.mark.parametrize(
    ("line", "changes", "expected"),
    [(0, {"los": 1.0}, "los"), (1, {"accuracy": "much"}, "accuracy"), (1, {"kind": "test"}, "kind")],
)
def test_a_line_that_is_none_is_refused(tmp_path, line, changes, expected):
    path = tmp_path / "log.jsonl"
    path.write_text(json.dumps({**LINES[line].model_dump(exclude_none=True), **changes}) + "\n")
    with pytest.raises(CheckpointError, match=expected):
        read_log(path)


@pytest.mark.parametrize("name", zoo.checkpoints())
def test_the_log_of_each_shipped_checkpoint_is_read(name):
    lines = read_log(zoo.path(name) / "log.jsonl")
    last = selected(lines, None)
    assert last is not None
    assert last.scores
    assert isinstance(lines[0], TrainingLine)


def test_the_first_of_the_best_validations_is_selected():
    lines = [
        ValidationLine.model_validate(
            {"step": step, "epoch": 1.0, "wall_seconds": 1.0, "accuracy": accuracy, "cross_entropy": entropy}
        )
        for step, accuracy, entropy in ((1, 0.5, 2.0), (2, 0.7, 1.0), (3, 0.7, 1.0), (4, 0.1, 1.5))
    ]
    assert [selected(lines, by).step for by in (None, ACCURACY, CROSS_ENTROPY)] == [4, 2, 2]


@pytest.mark.parametrize("score", [ACCURACY, Score("cross_entropy", "nats", logarithmic=True, chance=2.3)])
def test_the_picture_has_the_same_bytes_each_time(score):
    pictures = [draw_learning_curve(LINES, title="$x_1", score=score) for _ in range(2)]
    assert pictures[0] == pictures[1]
    assert pictures[0].startswith(b"\x89PNG")
