"""Committed rows are measured again here: what agrees, what does not, and what is not measured twice."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.evaluation.conftest import pairs
from tests.zoo.conftest import make_checkpoint
from tests.zoo.test_zoo import with_summary
from urzoo.cli import main
from urzoo.evaluation import read_result, reproduction
from urzoo.evaluation.predictions import predictions_path, read_predictions
from urzoo.evaluation.reproduction import Reproduced, reproduce
from urzoo.evaluation.schema import result_path
from urzoo.zoo import lookup


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A zoo of two checkpoints, the first of which is recommended, and the whole result of that one."""
    folder = tmp_path_factory.mktemp("shipped")
    with_summary(make_checkpoint(folder / "zoo" / "good"), validation={"accuracy": 0.9})
    with_summary(make_checkpoint(folder / "zoo" / "other", seed=1), validation={"accuracy": 0.8})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lookup, "CHECKPOINTS_FOLDER", folder / "zoo")
        pairs(["good"], ["smnist"], results=folder / "results", save_predictions=True)
    return folder


@pytest.fixture
def clone(shipped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(lookup, "CHECKPOINTS_FOLDER", shipped / "zoo")
    monkeypatch.setattr(lookup, "STUDY_FOLDER", tmp_path / "gating_study")
    shutil.copytree(shipped / "results", tmp_path / "results")
    return tmp_path


def reproduced(clone: Path, **options: Any) -> list[Reproduced]:
    folders = {"results": clone / "results", "measured": clone / "measured"}
    return list(reproduce(["smnist"], **{"progress": False, **folders, **options}))


def whole(clone: Path, shipped: Path) -> Reproduced:
    """The row of the recommended checkpoint, on all rows, which were measured here before."""
    shutil.copytree(shipped / "results", clone / "measured")
    return next(row for row in reproduced(clone, everything=True) if row.model == "good")


def change(clone: Path, **metrics: float) -> None:
    path = result_path(clone / "results", "good", "smnist")
    content = json.loads(path.read_text())
    content["metrics"] |= metrics
    content["intervals"] = {}
    path.write_text(json.dumps(content))


def test_the_recommended_checkpoint_is_measured_once_and_agrees(clone: Path, monkeypatch: pytest.MonkeyPatch):
    committed = result_path(clone / "results", "good", "smnist").read_bytes()
    [row] = reproduced(clone)
    assert (row.status, row.model, row.is_failure) == ("same", "good", False)
    assert "on 500 of 10,000 rows: same as the committed row says of these" in row.message
    assert result_path(clone / "results", "good", "smnist").read_bytes() == committed
    monkeypatch.setattr(reproduction, "Keeper", None)
    [again] = reproduced(clone)
    assert again.status == "same"
    assert "measured here on" in again.message


def test_of_a_long_split_some_rows_are_compared_one_by_one(clone: Path):
    [row] = reproduced(clone)
    assert row.status == "same", row.message
    result = read_result(result_path(clone / "measured", "good", "smnist"))
    assert (result.partial, result.samples) == (True, 500)
    assert f"on {result.samples:,} of 10,000 rows: same as the committed row says of these" in row.message
    here, there = (
        read_predictions(predictions_path(clone / name, "good", "smnist")) for name in ("measured", "results")
    )
    rows = here.columns["row"]
    assert len(set(rows.tolist())) == result.samples
    assert rows.tolist() != list(range(result.samples))
    place = np.argsort(there.columns["row"])[rows]
    assert np.array_equal(there.columns["label"][place], here.columns["label"])
    found = {row.model: row.status for row in reproduced(clone, everything=True)}
    assert found == {"good": "same", "other": "uncommitted"}
    assert not read_result(result_path(clone / "measured", "good", "smnist")).partial


def test_a_row_of_the_split_that_is_answered_otherwise_is_told(clone: Path):
    path = predictions_path(clone / "results", "good", "smnist")
    table = pq.read_table(path)
    wrong = pa.array((np.asarray(table["label"]) + 1) % 10)
    pq.write_table(table.set_column(table.column_names.index("prediction"), "prediction", wrong), path)
    [row] = reproduced(clone)
    assert row.status == "beyond"
    assert "from the committed 0.00 % of these rows" in row.message


def test_rows_in_another_order_than_the_committed_ones_are_not_compared(clone: Path):
    path = predictions_path(clone / "results", "good", "smnist")
    table = pq.read_table(path)
    turned = pa.array(np.roll(np.asarray(table["row"]), 1))
    pq.write_table(table.set_column(table.column_names.index("row"), "row", turned), path)
    [row] = reproduced(clone)
    assert row.status == "failed"
    assert "the rows here are in another order than those of the committed row" in row.message


@pytest.mark.parametrize(("shift", "status"), [(0.0004, "within"), (-0.0004, "within"), (0.002, "beyond")])
def test_a_difference_is_held_against_the_tolerance(clone: Path, shipped: Path, shift: float, status: str):
    accuracy = read_result(result_path(clone / "results", "good", "smnist")).metrics["accuracy"]
    change(clone, accuracy=accuracy + shift)
    row = whole(clone, shipped)
    assert row.status == status
    assert f"differs by {-shift * 100:+.2f} from the committed" in row.message
    assert ("more than" if status == "beyond" else "within") + " the tolerance of 0.05 %" in row.message


def test_a_metric_that_does_not_rank_counts_too(clone: Path, shipped: Path):
    change(clone, cross_entropy=9.0)
    row = whole(clone, shipped)
    assert row.status == "beyond"
    assert "Cross entropy differs by" in row.message


def test_a_row_of_other_weights_is_told_with_what_renews_it(
    clone: Path, shipped: Path, monkeypatch: pytest.MonkeyPatch
):
    shutil.copytree(shipped / "zoo", clone / "zoo")
    shutil.rmtree(clone / "zoo" / "good")
    with_summary(make_checkpoint(clone / "zoo" / "good", seed=3), validation={"accuracy": 0.9})
    monkeypatch.setattr(lookup, "CHECKPOINTS_FOLDER", clone / "zoo")
    [row] = reproduced(clone)
    assert (row.status, row.is_failure) == ("outdated", True)
    assert "urzoo eval good --task smnist --save-predictions" in row.message
    assert not (clone / "measured").exists()


def test_data_that_are_there_in_part_fail_their_task(clone: Path):
    folder = clone / "root" / "ylecun" / "mnist" / "mnist"
    folder.mkdir(parents=True)
    (folder / "test-00000-of-00002.parquet").touch()
    [row] = reproduced(clone, data_root=clone / "root")
    assert row.status == "failed"
    assert row.message.startswith(f"smnist: {folder} holds 1 of the 2 files")


def test_a_task_without_a_checkpoint_is_told(clone: Path):
    folders = {"results": clone / "results", "measured": clone / "measured"}
    [row] = reproduce(["imdb"], progress=False, **folders)
    assert (row.status, row.model) == ("skipped", None)
    assert "imdb: no shipped checkpoint is made for it" in row.message


def test_without_a_committed_row_the_figure_is_told_alone(clone: Path):
    shutil.rmtree(clone / "results")
    [row] = reproduced(clone)
    assert (row.status, row.is_failure) == ("uncommitted", False)
    assert "on 500 of 10,000 rows; there is no committed row" in row.message


def test_without_its_predictions_a_long_split_is_left_out_with_the_command(clone: Path):
    predictions_path(clone / "results", "good", "smnist").unlink()
    [row] = reproduced(clone)
    assert row.status == "skipped"
    assert "urzoo reproduce --all --task smnist" in row.message


def test_the_command_tells_what_lacks_at_the_end_and_builds_the_board(
    clone: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(clone)
    with_summary(make_checkpoint(clone / "zoo" / "c"), task="imdb", validation={"accuracy": 0.9})
    shutil.copytree(lookup.CHECKPOINTS_FOLDER / "good", clone / "zoo" / "good")
    monkeypatch.setattr(lookup, "CHECKPOINTS_FOLDER", clone / "zoo")
    options = ["reproduce", "--results", "results", "--out", "board"]
    assert main(options) == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines()[0].startswith("good on smnist: ")
    assert captured.out.splitlines()[-1] == "The board is in board/index.html."
    assert captured.err.count("imdb: the test split of imdb is not shipped") == 1
    assert "hf download stanfordnlp/imdb --repo-type dataset" in captured.err
    assert (clone / "board" / "measured" / "good" / "smnist.json").exists()
    change(clone, accuracy=0.5)
    assert main([*options, "--all", "--task", "smnist"]) == 1
    assert "error: good on smnist: " in capsys.readouterr().err
    assert main(["reproduce", "--results", "nowhere"]) == 2
    assert "no folder 'nowhere'" in capsys.readouterr().err
