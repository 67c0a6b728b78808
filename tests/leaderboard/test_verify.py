"""Repeating rows, with a real untrained checkpoint evaluated on all of the MNIST test split."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.zoo.conftest import make_checkpoint
from urzoo.cli import main
from urzoo.data import Split, sources
from urzoo.errors import ResultError, UrzooError
from urzoo.evaluation.intervals import wilson
from urzoo.evaluation.runner import evaluate
from urzoo.evaluation.schema import Result, result_name, write_result
from urzoo.leaderboard.verify import check_submission, verify
from urzoo.zoo import info
from urzoo.zoo.weights import file_sha256

from .conftest import write_training

NAME = "small-8"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_checkpoint(tmp_path_factory.mktemp("zoo") / NAME)
    write_training(folder, "smnist", file_sha256(folder / "model.safetensors"), {"accuracy": 0.1})
    return folder


@pytest.fixture(scope="module")
def honest(checkpoint: Path) -> Result:
    return evaluate(checkpoint, "smnist", batch_size=500, progress=False)


def named(checkpoint: Path) -> dict[str, Path]:
    return {result_name(info(checkpoint)): checkpoint}


@pytest.fixture(autouse=True)
def _no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "hub_unreachable", lambda: "not in a test")
    monkeypatch.delenv("URZOO_DATA_ROOT", raising=False)


@pytest.fixture
def submitted(results: Path, honest: Result) -> Callable[..., Path]:
    """Write the honest result with some keys changed; returns the file."""

    def write(**changes: object) -> Path:
        content = honest.model_dump(mode="json")
        for path, value in changes.items():
            *parents, key = path.split("__")
            place = content
            for parent in parents:
                place = place[parent]
            place[key] = value
        file = write_result(results, honest)
        file.write_text(json.dumps(content))
        return file

    return write


def test_an_honest_row_is_repeated_and_agrees(submitted: Callable[..., Path], results: Path, checkpoint: Path):
    submitted()
    verification = verify(results, 5, folders=named(checkpoint), progress=False)
    ends = {"accuracy interval's low", "accuracy interval's high"}
    assert {one.metric.name for one in verification.compared} == {"accuracy", "cross_entropy", *ends}
    assert all(one.agrees for one in verification.compared)
    assert not verification.unrepeatable


def test_a_row_that_differs_fails_with_both_figures(submitted: Callable[..., Path], results: Path, checkpoint: Path):
    better = {"low": 0.5, "high": 0.7, "level": 0.95, "method": "Wilson"}
    submitted(metrics__accuracy=0.6, intervals__accuracy=better)
    with pytest.raises(ResultError, match=r"accuracy is 0.6 in the result and 0\.\d+ here") as caught:
        verify(results, 1, folders=named(checkpoint), progress=False)
    assert "\n" not in str(caught.value)


def test_an_interval_that_differs_fails(submitted: Callable[..., Path], results: Path, checkpoint: Path):
    submitted(intervals__accuracy__low=0.01)
    with pytest.raises(ResultError, match=r"accuracy interval's low is 0\.01 in the result and 0\.\d+ here"):
        verify(results, 1, folders=named(checkpoint), progress=False)


def test_a_row_of_other_weights_fails_without_an_evaluation(
    submitted: Callable[..., Path], results: Path, checkpoint: Path
):
    submitted(model__checkpoint_sha256="0" * 64)
    with pytest.raises(ResultError, match="measured with checkpoint 000000000000"):
        verify(results, 1, folders=named(checkpoint), progress=False)


def test_rows_that_cannot_be_repeated_are_told_with_the_reason(
    submitted: Callable[..., Path], put: Callable[..., Path], results: Path, checkpoint: Path
):
    submitted()
    put("elsewhere", "smnist", 0.98)
    put("old", "smnist", 0.98, task__version=9)
    verification = verify(results, 9, folders=named(checkpoint), progress=False)
    assert {one.model for one in verification.compared} == set(named(checkpoint))
    told = " ".join(verification.unrepeatable)
    assert "elsewhere is not here" in told
    assert "outdated" in told


def test_with_nothing_to_repeat_verify_fails(put: Callable[..., Path], results: Path):
    put("elsewhere", "smnist", 0.98)
    with pytest.raises(UrzooError, match=r"no result under .* can be repeated here"):
        verify(results, 1, progress=False)
    with pytest.raises(UrzooError, match="verify is 0"):
        verify(results, 0, progress=False)


def test_an_honest_submission_passes(submitted: Callable[..., Path], checkpoint: Path):
    compared = check_submission(submitted(), checkpoint, progress=False)
    assert all(one.agrees for one in compared)
    assert len(compared) == 4  # two metrics, and the ends of an interval


def test_a_submission_that_lacks_a_metric_is_refused(submitted: Callable[..., Path], checkpoint: Path):
    changes = {"metrics": {"accuracy": 0.1}, "intervals__accuracy": wilson(1_000, 10_000).model_dump()}
    with pytest.raises(ResultError, match=r"on smnist lacks cross_entropy; evaluate again"):
        check_submission(submitted(**changes), checkpoint, samples=10, progress=False)


def test_the_command_checks_a_submission(
    submitted: Callable[..., Path], results: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
):
    file = submitted()
    options = ["leaderboard", "--submission", str(file), "--checkpoint", str(checkpoint)]
    assert main([*options, "--samples", "300"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0].startswith(f"{next(iter(named(checkpoint)))} on smnist: accuracy ")
    assert told[-1] == f"{file} is fit for the board."
    submitted(metrics__cross_entropy=1.0)
    assert main(options) == 1
    assert "cross_entropy is 1 in the result and" in capsys.readouterr().err
    assert main(["leaderboard", "--verify", "1", "--results", str(results), "--checkpoint", str(checkpoint)]) == 1
    assert "cross_entropy is 1 in the result" in capsys.readouterr().err


def test_a_baseline_of_another_library_may_be_sent_in(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    from tests.evaluation.examples import make_foreign

    folder, _ = make_foreign("vit", tmp_path / "vit")
    file = write_result(results, evaluate(folder, "smnist", progress=False))
    assert main(["leaderboard", "--submission", str(file), "--checkpoint", str(folder), "--samples", "500"]) == 0
    assert "is fit for the board" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--submission", "x.json"], "needs one --checkpoint"),
        (["--submission", "x.json", "--checkpoint", "a", "--checkpoint", "b"], "needs one --checkpoint"),
        (["--samples", "9"], "--samples goes with --submission"),
        (["--checkpoint", "urlstm-128-smnist"], "--checkpoint goes with --verify or --submission"),
        (["--submission", "x.json", "--checkpoint", "urlstm-128-smnist", "--samples", "0"], "samples is 0"),
    ],
)
def test_a_wrong_use_of_the_command_is_told(
    options: list[str],
    complaint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.json").write_text("{}")
    assert main(["leaderboard", *options]) == 2
    assert complaint in capsys.readouterr().err


def test_a_sample_is_drawn_from_all_rows(submitted: Callable[..., Path], checkpoint: Path, monkeypatch):
    """The first rows of a data set may all be of one class."""
    chosen: list[np.ndarray] = []
    select = Split.select
    monkeypatch.setattr(Split, "select", lambda self, rows: chosen.append(rows) or select(self, rows))
    check_submission(submitted(), checkpoint, samples=200, seed=1, progress=False)
    [rows] = chosen
    assert len(set(rows.tolist())) == 200
    assert rows.min() < 500
    assert rows.max() > 9500


def test_a_sample_finds_a_gross_difference(submitted: Callable[..., Path], checkpoint: Path):
    compared = check_submission(submitted(), checkpoint, samples=500, progress=False)
    assert [one.metric.name for one in compared] == ["accuracy"]
    bounds = wilson(9850, 10_000).model_dump()
    with pytest.raises(ResultError, match=r"accuracy is 0\.985"):
        check_submission(
            submitted(metrics__accuracy=0.985, intervals__accuracy=bounds), checkpoint, samples=500, progress=False
        )


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"samples": 100, "partial": True}, "key partial is true"),
        ({"task__version": 9}, "would not be ranked: measured under version 9"),
        ({"data__digest": "0" * 64}, "would not be ranked: measured on data 000000000000"),
        ({"model__training__selection_split": "test"}, "selection_split is 'test'"),
        ({"model__training__selection_split": "unknown"}, "not known on which split"),
        ({"metrics__accuracy": 0.98765}, "a number of right answers out of 10000"),
        ({"metrics__accuracy": 0.9}, r"expected 0\.893966 to 0\.905727, that of 0\.9 by Wilson's formula"),
        ({"intervals__accuracy__level": 0.5, "intervals__accuracy__low": 0.09}, "key intervals.accuracy is 0.09 to"),
        ({"samples": 10, "data__rows": 10}, "key data.rows is 10; expected 10000"),
        ({"model__checkpoint_sha256": "0" * 64}, "measured with checkpoint 000000000000"),
        ({"command": "urzoo \u202e"}, "U\\+202E"),
    ],
)
def test_an_unfit_submission_is_refused_before_anything_is_evaluated(
    submitted: Callable[..., Path], checkpoint: Path, tmp_path: Path, changes: dict, complaint: str
):
    # Without its weights the checkpoint could not be evaluated; its digest is asked for last.
    if "model__checkpoint_sha256" not in changes:
        checkpoint = Path(shutil.copytree(checkpoint, tmp_path / NAME))
        (checkpoint / "model.safetensors").unlink()
    with pytest.raises(ResultError, match=complaint) as caught:
        check_submission(submitted(**changes), checkpoint, progress=False)
    assert "smnist.json" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"parameters": 1}, "key model.parameters is 1; expected"),
        ({"source": "shipped"}, "key model.source is 'shipped'; expected 'folder'"),
        ({"training__wall_seconds": 1.0}, "key model.training.wall_seconds is 1.0; expected"),
        ({"training": None, "cell": None}, "key model.cell is None; expected 'lstm'"),
        ({"name": "urlstm-256-smnist"}, r"key model.name is 'urlstm-256-smnist'; expected 'urlstm-256-smnist\+"),
    ],
)
def test_what_a_submission_says_of_its_model_must_be_so(
    submitted: Callable[..., Path], checkpoint: Path, changes: dict, complaint: str
):
    with pytest.raises(ResultError, match=complaint):
        check_submission(
            submitted(**{f"model__{key}": value for key, value in changes.items()}), checkpoint, progress=False
        )
