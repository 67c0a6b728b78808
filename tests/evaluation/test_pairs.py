"""Which pairs are evaluated, which results are kept, and what is told about the rest."""

import json
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.evaluation.conftest import name_of, pairs
from tests.zoo.conftest import make_checkpoint
from urzoo.errors import UsageError
from urzoo.evaluation import evaluate_pairs
from urzoo.evaluation import pairs as pairs_module
from urzoo.evaluation.image_classification import ImageClassification
from urzoo.evaluation.journal import Journal, locked
from urzoo.evaluation.predictions import predictions_path, read_predictions
from urzoo.evaluation.runner import Settings
from urzoo.evaluation.schema import read_result, result_path
from urzoo.zoo import info, lookup

LIMITED = Settings(limit=20)


@pytest.fixture(scope="module")
def whole(raster: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A result file of all rows."""
    results = tmp_path_factory.mktemp("whole")
    [pair] = pairs([raster], ["smnist"], results=results)
    assert not pair.result.partial
    return result_path(results, name_of(raster), "smnist").read_bytes()


@pytest.fixture
def place(raster: Path, whole: bytes, results: Path) -> Path:
    """That file where it belongs."""
    path = result_path(results, name_of(raster), "smnist")
    path.parent.mkdir(parents=True)
    path.write_bytes(whole)
    return path


def test_a_result_is_kept_and_not_computed_again(raster: Path, results: Path, monkeypatch: pytest.MonkeyPatch):
    first = pairs([raster], ["smnist"], results=results)[0]
    assert first.status == "evaluated"
    assert read_result(result_path(results, name_of(raster), "smnist")) == first.result
    monkeypatch.setattr(pairs_module, "Evaluation", None)
    second = pairs([raster], ["smnist"], results=results)[0]
    assert (second.status, second.result) == ("current", first.result)
    assert sorted(path.name for path in results.rglob("*")) == [name_of(raster), "smnist.json"]


def test_each_checkpoint_gets_the_tasks_it_fits(raster: Path, permuted: Path, results: Path):
    done = pairs([raster, permuted], results=results, settings=LIMITED)
    found = {(pair.model, pair.task) for pair in done if pair.status == "evaluated"}
    assert found == {(name_of(raster), "smnist"), (name_of(permuted), "pmnist")}


def test_a_pair_that_was_asked_for_by_name_is_refused_with_the_reason(raster: Path, results: Path):
    [pair] = pairs([raster], ["pmnist"], results=results, settings=LIMITED)
    assert pair.status == "failed"
    assert "the task requires permuted" in pair.message
    assert pair.error.exit_code == 2
    assert not results.exists()


def test_unknown_names_are_refused_before_anything_is_evaluated(raster: Path, results: Path):
    for arguments in (([raster, "nothing"], ["smnist"]), ([raster], ["smnist", "nothing"])):
        with pytest.raises(UsageError, match="'nothing'"):
            pairs(*arguments, results=results)
    with pytest.raises(UsageError, match="unknown overwrite 'sometimes'"):
        pairs([raster], ["smnist"], results=results, overwrite="sometimes")
    assert not results.exists()


def test_a_damaged_checkpoint_does_not_keep_the_others_from_being_evaluated(
    raster: Path, results: Path, tmp_path: Path
):
    broken = shutil.copytree(raster, tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"short")
    done = pairs([broken, raster], ["smnist"], results=results, settings=LIMITED)
    assert [pair.status for pair in done] == ["failed", "evaluated"]
    assert "truncated or damaged" in done[0].message


@pytest.mark.parametrize(
    ("key", "value", "status"),
    [
        (("model", "checkpoint_sha256"), "0" * 64, "evaluated"),
        (("task", "version"), 99, "evaluated"),
        (("data", "digest"), "0" * 64, "evaluated"),
        (("git_commit",), "0" * 40, "current"),
        (("urzoo_version",), "0.0.1", "current"),
    ],
)
def test_stale_results_are_replaced_and_others_stand(
    raster: Path, results: Path, place: Path, key: tuple[str, ...], value: object, status: str
):
    content = json.loads(place.read_text())
    target = content
    for part in key[:-1]:
        target = target[part]
    target[key[-1]] = value
    place.write_text(json.dumps(content))
    [pair] = pairs([raster], ["smnist"], results=results)
    assert pair.status == status
    [again] = pairs([raster], ["smnist"], results=results)
    assert again.status == "current"


@pytest.mark.parametrize(
    ("key", "value", "asked"),
    [
        ("dtype", "bfloat16", Settings()),
        ("backend", "cpu", Settings(backend="reference")),
        ("device", "cuda", Settings(device="cpu")),
        ("seed", 1, Settings()),
    ],
)
def test_a_result_computed_in_another_way_than_asked_for_is_replaced(
    raster: Path, results: Path, place: Path, key: str, value: object, asked: Settings, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(ImageClassification, "batches", lambda *_: [np.arange(3)])
    place.write_text(json.dumps(json.loads(place.read_text()) | {key: value}))
    if key not in ("dtype", "seed"):
        assert pairs([raster], ["smnist"], results=results)[0].status == "current"
    [pair] = pairs([raster], ["smnist"], results=results, settings=asked)
    assert (pair.status, getattr(pair.result, key)) == ("evaluated", getattr(asked, key))


def test_overwrite_never_and_always(raster: Path, results: Path, place: Path):
    content = json.loads(place.read_text())
    place.write_text(json.dumps({**content, "task": {"name": "smnist", "version": 99}}))
    assert pairs([raster], ["smnist"], results=results, overwrite="never")[0].status == "kept"
    assert pairs([raster], ["smnist"], results=results, overwrite="stale")[0].status == "evaluated"
    assert pairs([raster], ["smnist"], results=results, overwrite="always")[0].status == "evaluated"


@pytest.mark.parametrize("overwrite", ["stale", "always"])
def test_a_limit_evaluates_and_never_replaces_a_whole_result(raster: Path, results: Path, place: Path, overwrite: str):
    before = place.read_bytes()
    [pair] = pairs([raster], ["smnist"], results=results, settings=LIMITED, overwrite=overwrite)
    assert (pair.status, pair.result.samples) == ("evaluated", 20)
    assert f"not written, {place} covers all rows" in pair.message
    assert place.read_bytes() == before
    assert [path.name for path in place.parent.iterdir()] == ["smnist.json"]


def test_folders_of_one_name_keep_a_result_each(tmp_path: Path, results: Path, place: Path):
    before = place.read_bytes()
    folders = [make_checkpoint(tmp_path / name / "raster-8", seed=seed) for seed, name in ((5, "a"), (6, "b"))]
    done = pairs(folders, ["smnist"], results=results, settings=LIMITED)
    assert [pair.status for pair in done] == ["evaluated"] * 2
    assert "not written" not in done[0].message
    kept = {read_result(path).model.checkpoint_sha256 for path in results.rglob("smnist.json")}
    assert kept == {info(folder).checkpoint_sha256 for folder in folders} | {read_result(place).model.checkpoint_sha256}
    assert place.read_bytes() == before


@pytest.mark.parametrize(
    ("name", "kept"),
    [("my model", "my-model"), ("=cmd|A", "cmd-A"), ("模型", "model"), ("x" * 200, "x" * 80), ("a+b", "a-b")],
)
def test_a_folder_of_any_name_gets_a_result(raster: Path, tmp_path: Path, results: Path, name: str, kept: str):
    folder = shutil.copytree(raster, tmp_path / name)
    [pair] = pairs([folder], ["smnist"], results=results, settings=LIMITED)
    assert pair.status == "evaluated"
    assert pair.model == f"{kept}+{info(raster).checkpoint_sha256[:8]}"
    assert shlex.split(pair.result.command)[2] == f"path/to/{name}"
    assert read_result(result_path(results, pair.model, "smnist")) == pair.result


def test_a_whole_result_replaces_a_partial_one(raster: Path, results: Path):
    [pair] = pairs([raster], ["smnist"], results=results, settings=LIMITED)
    assert pair.result.partial
    assert "20 of 10000 rows" in pair.message
    assert pairs([raster], ["smnist"], results=results)[0].status == "evaluated"


@pytest.mark.parametrize("content", ["", "{}", '{"schema_version": 2}'])
def test_a_result_file_that_cannot_be_read_is_not_lost(raster: Path, results: Path, content: str):
    place = result_path(results, name_of(raster), "smnist")
    place.parent.mkdir(parents=True)
    place.write_text(content)
    [pair] = pairs([raster], ["smnist"], results=results)
    assert pair.status == "failed"
    assert str(place) in pair.message
    assert place.read_text() == content


def test_a_results_folder_that_cannot_be_written_is_told_before_the_evaluation(raster: Path, tmp_path: Path):
    (tmp_path / "file").write_text("not a folder")
    [pair] = pairs([raster], ["smnist"], results=tmp_path / "file", settings=LIMITED)
    assert pair.status == "failed"
    assert "cannot write" in pair.message
    assert "\n" not in pair.message


def test_lacking_data_are_told_once_a_task_and_leave_results_alone(
    raster: Path, results: Path, place: Path, monkeypatch: pytest.MonkeyPatch
):
    place = place.parent.rename(results / "raster-8") / place.name
    place.write_text(place.read_text().replace(name_of(raster), "raster-8"))
    before = place.read_bytes()
    monkeypatch.setattr(lookup, "CHECKPOINTS_FOLDER", raster.parent)
    monkeypatch.setattr(pairs_module, "lacking", lambda *arguments, **options: "the test split of it is elsewhere.")
    done = pairs(results=results)
    assert [pair.status for pair in done if pair.model is None] == ["lacking"] * len(pairs_module.tasks())
    assert [(pair.status, pair.model) for pair in done if pair.model] == [("current", "raster-8")]
    assert place.read_bytes() == before


def test_pairs_are_given_as_soon_as_each_is_done(raster: Path, permuted: Path, results: Path):
    waiting = evaluate_pairs([raster, permuted], results=results, settings=LIMITED, progress=False)
    first = next(waiting)
    assert [path.stem for path in results.rglob("*.json")] == [first.task]
    assert len(list(waiting)) == 1


def test_what_was_done_before_an_interruption_is_not_done_again(
    raster: Path, results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    models = [raster, *(make_checkpoint(tmp_path / str(seed), seed=seed) for seed in (5, 6))]

    def interrupted(self: ImageClassification, rows: np.ndarray) -> dict[str, np.ndarray]:
        raise KeyboardInterrupt

    waiting = evaluate_pairs(models, ["smnist"], results=results, progress=False)
    assert next(waiting).status == "evaluated"
    with monkeypatch.context() as patch:
        patch.setattr(ImageClassification, "outputs", interrupted)
        with pytest.raises(KeyboardInterrupt):
            next(waiting)
    done = pairs(models, ["smnist"], results=results)
    assert [pair.status for pair in done] == ["current", "evaluated", "evaluated"]


def test_data_that_are_there_in_part_fail_their_task_alone(raster: Path, results: Path, tmp_path: Path):
    folder = tmp_path / "root" / "stanfordnlp" / "imdb" / "plain_text"
    folder.mkdir(parents=True)
    (folder / "test-00000-of-00002.parquet").touch()
    done = pairs([raster], ["imdb", "smnist"], results=results, settings=LIMITED, data_root=tmp_path / "root")
    assert [(pair.task, pair.status) for pair in done] == [("imdb", "failed"), ("smnist", "evaluated")]
    assert done[0].message.startswith(f"imdb: {folder} holds 1 of the 2 files of split 'test'")


def test_two_evaluations_of_one_pair_at_a_time_are_refused(raster: Path, results: Path):
    journal = Journal(results / name_of(raster), "smnist")
    with locked(journal.lock, "evaluating raster-8 on smnist"):
        [pair] = pairs([raster], ["smnist"], results=results, settings=LIMITED)
    assert pair.status == "failed"
    assert f"another process is evaluating {name_of(raster)} on smnist" in pair.message
    assert pairs([raster], ["smnist"], results=results, settings=LIMITED)[0].status == "evaluated"


def test_predictions_are_saved_on_request_with_their_result(raster: Path, results: Path):
    path = predictions_path(results, name_of(raster), "smnist")
    pairs([raster], ["smnist"], results=results, settings=LIMITED)
    assert not path.exists()
    [pair] = pairs([raster], ["smnist"], results=results, settings=LIMITED, save_predictions=True)
    saved = read_predictions(path)
    assert saved.result == pair.result
    assert saved.columns["row"].tolist() == list(range(20))
    right = saved.columns["label"] == saved.columns["prediction"]
    assert right.mean() == pair.result.metrics["accuracy"]
    assert -saved.columns["label_log_probability"].mean() == pytest.approx(pair.result.metrics["cross_entropy"])
