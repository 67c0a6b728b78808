"""What the board reads beside the result files."""

import json
from collections.abc import Callable
from pathlib import Path

from urzoo.leaderboard.build import make_board
from urzoo.leaderboard.report import render_report
from urzoo.leaderboard.tables import overview_table

from .conftest import write_training


def test_a_row_tells_what_its_training_began_with(put: Callable[..., Path], results: Path, tmp_path: Path):
    """Of the weights in the result alone: those of the other model are others by now."""
    folder = tmp_path / "zoo"
    for name, weights in (("begun", "a" * 64), ("changed", "b" * 64), ("drawn", "a" * 64)):
        put(name, "smnist", 0.98)
        (folder / name).mkdir(parents=True)
        write_training(folder / name, "smnist", weights, {"accuracy": 0.98})
    initial = {"name": "first-stage", "task": None, "weights_sha256": "f" * 64, "recipe_sha256": None}
    for name in ("begun", "changed"):
        file = folder / name / "training.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"initialised_from": initial}))
    board, _ = make_board(results, results.parent, checkpoints=folder)
    rows = {row.model: row.begun_with for row in board.section("smnist").measured}
    assert rows == {"begun": "first-stage", "changed": None, "drawn": None}
    assert "begun; begun with first-stage, whose training time is not counted |" in overview_table(board)
    assert "| 1.5 h, after first-stage |" in render_report(board, remarks=tmp_path / "none", folders=[folder])
