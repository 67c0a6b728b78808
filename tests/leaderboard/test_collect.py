"""What the board reads beside the result files."""

import json
from collections.abc import Callable
from pathlib import Path

from urzoo.leaderboard.build import make_board
from urzoo.leaderboard.report import render_report
from urzoo.leaderboard.tables import overview_table
from urzoo.markdown import markdown

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


def test_a_row_tells_where_its_training_departs_from_the_usual(put: Callable[..., Path], results: Path, tmp_path: Path):
    folder = tmp_path / "zoo"
    recipes = {
        "plain": "augmentation: {shift_pixels: 0, flip_horizontal: false, cutmix: null}\nmodel: {pooling: [last]}\n",
        "moved": "architecture: URLSTMForImageClassification\n"
        "augmentation: {shift_pixels: 1, flip_horizontal: true, rotate_degrees: 10.0}\nmodel: {pooling: [last, max]}\n",
        "none": "[]\n",
    }
    for name, recipe in recipes.items():
        put(name, "smnist", 0.98)
        (folder / name).mkdir(parents=True)
        write_training(folder / name, "smnist", "a" * 64, {"accuracy": 0.98})
        (folder / name / "recipe.yaml").write_text(recipe)
    put("moved", "scifar", 0.98)
    board, _ = make_board(results, results.parent, checkpoints=folder)
    changed = "augmented with shift pixels, flip horizontal, rotate degrees; pooled over last, max"
    assert {row.model: row.conditions for row in board.section("smnist").measured} == {
        "plain": None,
        "moved": changed,
        "none": None,
    }
    [row] = board.section("scifar").measured
    assert row.conditions == f"not trained on cifar10, but on mnist; {changed}"
    assert f"moved; not trained on cifar10, but on mnist; {markdown(changed)} |" in overview_table(board)


def test_the_best_is_measured_against_what_is_published_of_its_own_cell(put: Callable[..., Path], results: Path):
    put("lstm", "scifar", 0.75)
    assert make_board(results, results.parent)[0].section("scifar").reference.model == "UR-LSTM"
    put("gru", "scifar", 0.76, model__cell="gru")
    board, _ = make_board(results, results.parent)
    assert board.section("scifar").reference.model == "UR-GRU"
    assert "| 74.4, UR-GRU (" in overview_table(board)
