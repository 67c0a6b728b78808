from collections.abc import Callable
from pathlib import Path

import pytest

from urzoo.leaderboard.build import make_board
from urzoo.leaderboard.columns import EPOCHS
from urzoo.leaderboard.report import render_report

from .conftest import write_checkpoint
from .test_board import board_of


def put_seeds(
    put: Callable[..., Path], scores: tuple[float, ...], name: str = "urlstm-128-ur", **changes: object
) -> None:
    for seed, score in enumerate(scores):
        put(f"{name}-seed{seed}-smnist", "smnist", score, model__training__seed=seed, **changes)


def test_rows_that_differ_by_their_seed_alone_are_a_group(put: Callable[..., Path], results: Path):
    put_seeds(put, (0.98, 0.985, 0.99))
    put_seeds(put, (0.97, 0.971), "urlstm-128-plain", model__gate="--")
    section = board_of(results).section("smnist")
    best, plain = section.groups
    assert (best.name, best.seeds, best.shown, best.span) == (
        "urlstm-128-ur-smnist", (0, 1, 2), "98.50 ± 0.50", "98.00 to 99.00",
    )  # fmt: skip
    assert (plain.mean, plain.deviation) == (pytest.approx(97.05), pytest.approx(0.05 * 2**0.5))
    assert best.rows == tuple(f"smnist/urlstm-128-ur-seed{seed}-smnist" for seed in range(3))
    assert {row.group for row in section.measured} == {best.id, plain.id}
    assert [row.rank for row in section.measured] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    "change",
    [
        {"model__gate": "--"},
        {"model__cell": "gru"},
        {"model__hidden_size": 256},
        {"model__parameters": 1},
        {"model__source": "folder"},
        {"task__version": 7},
        {"model__training__selection_split": "unknown"},
        {"model__training__epochs": 3.0},
        {"model__name": "urlstm-256-ur-seed9-smnist"},
        {"model__name": "urlstm-128-ur-smnist"},
    ],
)
def test_a_row_that_differs_by_more_than_its_seed_is_in_no_group(
    put: Callable[..., Path], results: Path, change: dict[str, object]
):
    put_seeds(put, (0.98, 0.985))
    put("urlstm-128-ur-seed9-smnist", "smnist", 0.5, **change)
    [group] = board_of(results).section("smnist").groups
    assert group.seeds == (0, 1)
    put("alone-seed0-smnist", "smnist", 0.5)
    assert len(board_of(results).section("smnist").groups) == 1


def test_groups_of_one_name_have_their_own_links(put: Callable[..., Path], results: Path):
    put_seeds(put, (0.98, 0.985))
    for seed in (7, 8):
        put(f"urlstm-128-ur-seed{seed}-smnist", "smnist", 0.9, model__training__seed=seed, model__gate="--")
    first, second = board_of(results).section("smnist").groups
    assert first.name == second.name
    assert first.id != second.id


def test_trainings_from_one_seed_are_in_no_group(put: Callable[..., Path], results: Path):
    """Whatever their names say: their deviation would be none."""
    put_seeds(put, (0.98,))
    put("urlstm-128-ur-seed1-smnist", "smnist", 0.98, model__training__seed=0)
    assert board_of(results).section("smnist").groups == ()
    put("urlstm-128-ur-seed1-smnist", "smnist", 0.98, model__training__seed=7)
    assert board_of(results).section("smnist").groups[0].seeds == (0, 7)


def test_models_of_one_name_are_in_no_group(put: Callable[..., Path], results: Path):
    """Nobody knows which seed 0 belongs to which seed 1; the better one would flatter."""
    put_seeds(put, (0.98, 0.985), model__source="folder")
    put("urlstm-128-ur-seed0-smnist+12345678", "smnist", 0.99, model__source="folder")
    section = board_of(results).section("smnist")
    assert section.groups == ()
    assert len(section.measured) == 3


def test_the_epochs_to_half_and_nine_tenths_are_those_of_each_seed(
    put: Callable[..., Path], results: Path, tmp_path: Path
):
    put_seeds(put, (0.98, 0.985), model__source="study")
    put_seeds(put, (0.11, 0.11), "urlstm-128-plain", model__gate="--", model__source="study")
    put_seeds(put, (0.97, 0.97), "urlstm-128-r", model__gate="-R", model__source="study")
    logs = {
        "urlstm-128-ur-seed0": [0.3, 0.5, 0.8, 0.9],
        "urlstm-128-ur-seed1": [0.6, 0.4, 0.8, 0.89],
        "urlstm-128-plain-seed0": [0.1, 0.1],
        "urlstm-128-plain-seed1": [0.1, 0.2],
        "urlstm-128-r-seed0": [0.95],  # the log of the other seed is missing
    }
    for name, accuracies in logs.items():
        write_checkpoint(tmp_path / "board" / "gating_study" / f"{name}-smnist", "smnist", "a" * 64, accuracies)
    board, _ = make_board(results, tmp_path / "board")
    section = board.section("smnist")
    shown = {group.gate: [column.text(section, group) for column in EPOCHS] for group in section.groups}
    assert shown == {"UR": ["2, 1", "4, never"], "--": ["never", "never"], "-R": ["", ""]}
    ur = next(group for group in section.groups if group.gate == "UR")
    assert [column.value(section, ur) for column in EPOCHS] == [2, None]
    assert "| UR LSTM | 2 | 98.25 ± 0.35 % | 98.00 to 98.50 | 2, 1 | 4, never |" in render_report(
        board, remarks=tmp_path / "none.md", folders=()
    )
