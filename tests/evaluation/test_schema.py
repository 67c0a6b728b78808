"""Result files: strict, refused in one line that names the key, written in one step."""

import copy
import json
from pathlib import Path

import pytest

from urzoo.errors import ResultError, UrzooError, UsageError
from urzoo.evaluation import schema
from urzoo.evaluation.schema import (
    _UPGRADES,
    SCHEMA_VERSION,
    Result,
    parse_result,
    read_result,
    result_path,
    write_result,
)
from urzoo.evaluation.task import load_task, tasks
from urzoo.models import pixel_permutation

RESULT = {
    "schema_version": 1,
    "model": {
        "name": "someone/urlstm-8",
        "source": "Hub",
        "revision": "0123456",
        "architecture": "URLSTMForImageClassification",
        "cell": "lstm",
        "gate": "UR",
        "hidden_size": 8,
        "num_layers": 1,
        "parameters": 9,
        "weights_sha256": "a" * 64,
        "checkpoint_sha256": "b" * 64,
        "training": {
            "task": "smnist",
            "wall_seconds": 3.5,
            "epochs": 1.0,
            "seed": 0,
            "selection_split": "validation",
            "hardware": "a processor",
            "recipe_sha256": "c" * 64,
        },
    },
    "task": {"name": "smnist", "version": 1},
    "data": {
        "name": "mnist",
        "config": "mnist",
        "split": "test",
        "subset": None,
        "rows": 10,
        "digest": "d" * 64,
        "source": "shipped",
    },
    "metrics": {"accuracy": 0.5, "cross_entropy": 1.0},
    "primary_metric": "accuracy",
    "intervals": {"accuracy": {"low": 0.4, "high": 0.6, "level": 0.95, "method": "Wilson"}},
    "samples": 10,
    "partial": False,
    "batch_size": 5,
    "dtype": "float32",
    "device": "cpu",
    "hardware": "a processor",
    "backend": "reference",
    "threads": 2,
    "processes": 1,
    "seed": 0,
    "urzoo_version": "0.1.0",
    "git_commit": None,
    "torch_version": "2.13.0",
    "transformers_version": "5.23.0",
    "python_version": "3.11.7",
    "command": "urzoo eval someone/urlstm-8 --task smnist",
    "started_at": "2026-01-02T03:04:05Z",
    "wall_seconds": 1.0,
}


def changed(key: str, value: object) -> dict:
    content = copy.deepcopy(RESULT)
    *parents, last = key.split(".")
    target = content
    for parent in parents:
        target = target[parent]
    if value is KeyError:
        del target[last]
    else:
        target[last] = value
    return content


def test_a_result_is_written_to_its_place_and_read_back(tmp_path: Path):
    result = parse_result(RESULT, "here")
    path = write_result(tmp_path, result)
    assert path == tmp_path / "someone__urlstm-8" / "smnist.json" == result_path(tmp_path, "someone/urlstm-8", "smnist")
    assert read_result(path) == result
    assert json.loads(path.read_text()) == RESULT


# One file per schema version as it was written then; a file here is never changed, a new version adds its own.
VERSIONS = Path(__file__).with_name("result_versions")


def test_there_is_a_file_of_every_schema_version():
    assert sorted(int(path.stem) for path in VERSIONS.glob("*.json")) == list(range(1, SCHEMA_VERSION + 1))
    assert sorted(_UPGRADES) == list(range(1, SCHEMA_VERSION))


@pytest.mark.parametrize("version", range(1, SCHEMA_VERSION + 1))
def test_a_result_of_every_schema_version_still_loads(version: int):
    path = VERSIONS / f"{version}.json"
    assert json.loads(path.read_text())["schema_version"] == version
    result = read_result(path)
    assert result.schema_version == SCHEMA_VERSION
    assert (result.model.name, result.metrics["accuracy"], result.samples) == ("someone/urlstm-8", 0.5, 10)


def test_an_older_version_is_led_up_step_by_step(monkeypatch: pytest.MonkeyPatch):
    """As it will be when there is a second version: each step makes the next version's content."""
    steps: list[int] = []

    def step(version: int):
        def upgrade(content: dict) -> dict:
            steps.append(content["schema_version"])
            return {**content, "schema_version": version + 1, "seed": content["seed"] + 1}

        return upgrade

    monkeypatch.setattr(schema, "_UPGRADES", {-1: step(-1), 0: step(0)})
    old = parse_result(changed("schema_version", -1), "here")
    assert steps == [-1, 0]
    assert (old.schema_version, old.seed) == (1, 2)


@pytest.mark.parametrize("key", [key for key in RESULT if key != "schema_version"])
def test_a_missing_key_is_named(key: str):
    with pytest.raises(ResultError, match=f"key {key} is missing"):
        parse_result(changed(key, KeyError), "here")


@pytest.mark.parametrize(
    ("key", "value", "complaint"),
    [
        ("extra", 1, "unknown key extra"),
        ("model.extra", 1, r"unknown key model\.extra"),
        ("model.name", "../../etc/passwd", r"key model\.name"),
        ("model.name", "a/b/c", r"key model\.name"),
        ("model.name", "<script>", r"key model\.name"),
        ("model.name", "x" * 10_000_000, r"key model\.name"),
        ("task.name", "..", r"key task\.name"),
        ("samples", "10", "key samples is '10'"),
        ("samples", 10.0, "key samples"),
        ("samples", True, "key samples"),
        ("samples", 0, "key samples"),
        ("samples", 11, r"samples is 11, but data\.rows is 10"),
        ("samples", 9, "partial is False with 9 samples of 10 rows"),
        ("partial", True, "partial is True with 10 samples of 10 rows"),
        ("metrics.accuracy", "high", r"key metrics\.accuracy"),
        ("metrics", {}, "key metrics"),
        ("primary_metric", "f1", "primary_metric 'f1' is not among the metrics"),
        ("intervals.f1", {"low": 0.0, "high": 1.0, "level": 0.9, "method": "x"}, "intervals has 'f1'"),
        ("intervals.accuracy.low", 0.7, "low 0.7 is above high 0.6"),
        ("model.weights_sha256", "a" * 63, r"key model\.weights_sha256"),
        ("git_commit", "main", "key git_commit"),
        ("dtype", "int8", "key dtype"),
        ("started_at", "yesterday", "key started_at"),
        ("command", "two\nlines", "key command"),
        ("wall_seconds", -1.0, "key wall_seconds"),
        ("model.training.selection_split", "best", r"key model\.training\.selection_split"),
    ],
)
def test_a_wrong_value_is_named_in_one_line(key: str, value: object, complaint: str):
    with pytest.raises(ResultError, match=complaint) as caught:
        parse_result(changed(key, value), "here")
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 1000


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_nan_and_infinity_are_refused(tmp_path: Path, number: str):
    path = tmp_path / "result.json"
    path.write_text(json.dumps(RESULT).replace('"accuracy": 0.5', f'"accuracy": {number}'))
    with pytest.raises(ResultError, match=r"result\.json"):
        read_result(path)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ({}, "key schema_version is missing"),
        (changed("schema_version", 2), "of schema 2, written by a newer urzoo"),
        (changed("schema_version", 0), "of schema 0, which this urzoo no longer reads"),
        (changed("schema_version", "1"), "key schema_version is '1'"),
        (changed("schema_version", True), "key schema_version is 'True'"),
        ([], "expected a JSON object, got list"),
    ],
)
def test_another_schema_is_refused_with_the_reason(tmp_path: Path, content: object, complaint: str):
    path = tmp_path / "result.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ResultError, match=complaint):
        read_result(path)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b" " * 5_000_000])
def test_a_file_that_is_no_json_is_refused_in_one_line(tmp_path: Path, content: bytes):
    path = tmp_path / "result.json"
    path.write_bytes(content)
    with pytest.raises(ResultError) as caught:
        read_result(path)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_told(tmp_path: Path):
    with pytest.raises(ResultError, match="No such file"):
        read_result(tmp_path / "none.json")


def test_a_result_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    result = parse_result(RESULT, "here")
    path = write_result(tmp_path, result)
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(UrzooError, match="No space left on device"):
        write_result(tmp_path, Result(**{**dict(result), "seed": 1}))
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["smnist.json"]


def test_every_task_file_is_valid_and_of_its_name():
    assert {"smnist", "pmnist"} <= set(tasks())
    for name in tasks():
        assert load_task(name).name == name


def test_an_unknown_task_gets_near_matches():
    with pytest.raises(UsageError, match=r"unknown task 'pmnst'\. Did you mean 'pmnist'"):
        load_task("pmnst")


def test_the_permutation_of_pmnist_stays_what_it_is():
    """Checkpoints carry it, and results are only comparable while it is the same."""
    seed = load_task("pmnist").requires.permutation_seed
    assert seed == 0
    assert pixel_permutation(784, seed)[:8] == [693, 85, 647, 392, 765, 14, 299, 711]
