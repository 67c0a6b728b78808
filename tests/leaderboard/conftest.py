"""Result files as the evaluation would write them, made by hand so that each test can bend one key."""

import functools
import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from urzoo.evaluation.schema import result_path
from urzoo.leaderboard.collect import current_tasks

from .browser import Page, browser


def _record(model: str, task: str, accuracy: float, **changes: Any) -> dict[str, Any]:
    today = current_tasks()[task]
    record: dict[str, Any] = {
        "schema_version": 1,
        "model": {
            "name": model,
            "source": "shipped",
            "revision": None,
            "architecture": "URLSTMForImageClassification",
            "cell": "lstm",
            "gate": "UR",
            "hidden_size": 128,
            "num_layers": 1,
            "parameters": 102_154,
            "weights_sha256": "a" * 64,
            "checkpoint_sha256": "b" * 64,
            "training": {
                "task": task,
                "wall_seconds": 5400.0,
                "epochs": 30.0,
                "seed": 1,
                "selection_split": "validation",
                "hardware": "2 threads of an x86-64 CPU",
                "recipe_sha256": "c" * 64,
            },
        },
        "task": {"name": task, "version": today.task.version},
        "data": {
            "name": today.task.data.name,
            "config": "default",
            "split": today.task.data.split,
            "subset": None,
            "rows": 10_000,
            "digest": today.digest,
            "source": "shipped",
        },
        "metrics": {"accuracy": accuracy, "cross_entropy": 0.0712},
        "primary_metric": "accuracy",
        "intervals": {
            "accuracy": {"low": accuracy - 0.002, "high": accuracy + 0.0018, "level": 0.95, "method": "Wilson"}
        },
        "samples": 10_000,
        "partial": False,
        "batch_size": 256,
        "dtype": "float32",
        "device": "cpu",
        "hardware": "2 threads of an x86-64 CPU",
        "backend": "cpu",
        "threads": 2,
        "processes": 1,
        "seed": 0,
        "urzoo_version": "0.1.0",
        "git_commit": "d" * 40,
        "torch_version": "2.13.0",
        "transformers_version": "5.23.0",
        "python_version": "3.11.7",
        "command": f"urzoo eval {model} --task {task} --batch-size 256",
        "started_at": "2026-11-20T10:30:00Z",
        "wall_seconds": 41.5,
    }
    for path, value in changes.items():
        *parents, key = path.split("__")
        place = record
        for parent in parents:
            place = place[parent]
        place[key] = value
    return record


@pytest.fixture
def record() -> Callable[..., dict[str, Any]]:
    """A result's content; `model__gate="--"` and the like change one key of it."""
    return functools.partial(_record, "urlstm-128-smnist", "smnist", 0.9862)


@dataclass(frozen=True)
class BuiltBoard:
    """A board that has been built: its folder, the result files in it, and the checkpoints with its curves."""

    out: Path
    results: Path
    checkpoints: Path


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> BuiltBoard:
    """The example, built once for all tests; not to be changed."""
    from urzoo.leaderboard.build import build

    home = tmp_path_factory.mktemp("pristine")
    board = BuiltBoard(home / "board", home / "board" / "results", home / "checkpoints")
    write_example(board.results)
    write_checkpoints(board.checkpoints)
    build(board.results, board.out, checkpoints=board.checkpoints)
    return board


@pytest.fixture
def built(pristine: BuiltBoard, example: Path, checkpoints: Path) -> BuiltBoard:
    """A copy of the built example that a test may spoil; `put` adds results to it."""
    shutil.copytree(pristine.out, example.parent, dirs_exist_ok=True)
    return BuiltBoard(example.parent, example, checkpoints)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return tmp_path / "board" / "results"


@pytest.fixture
def put(results: Path) -> Callable[..., Path]:
    """Write a result file to its place without asking whether it is valid; returns its path."""
    return functools.partial(write_result, results)


def write_result(
    results: Path, model: str = "urlstm-128-smnist", task: str = "smnist", accuracy: float = 0.9862, **changes: Any
) -> Path:
    content = _record(model, task, accuracy, **changes)
    path = result_path(results, content["model"]["name"], content["task"]["name"])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


@pytest.fixture
def example(results: Path) -> Path:
    """A small board with every kind of row: ranked, not ranked, outdated, and a partial one that stays off it."""
    write_example(results)
    return results


def write_example(results: Path) -> None:
    put = functools.partial(write_result, results)
    put("urlstm-128-smnist", "smnist", 0.9862)
    put("urlstm-128-pmnist", "pmnist", 0.9418, model__weights_sha256="e" * 64)
    put("lstm-128-smnist", "smnist", 0.9765, model__gate="--", model__training__wall_seconds=4800.0)
    gru = {"model__cell": "gru", "model__source": "Hub", "model__hidden_size": 256, "model__parameters": 306_186}
    put("someone/urgru-256", "smnist", 0.9871, **gru)
    vit = {"model__architecture": "ViTForImageClassification", "model__parameters": 5_500_000, "model__source": "Hub"}
    nothing = dict.fromkeys(("model__cell", "model__gate", "model__hidden_size", "model__training"))
    put("google/vit-tiny", "smnist", 0.9915, **vit, **nothing)
    put("urlstm-64-smnist", "smnist", 0.98, task__version=7)
    put("urlstm-64-pmnist", "pmnist", 0.91, data__digest="f" * 64)
    put("urlstm-32-smnist", "smnist", 0.96, samples=100, partial=True)


@pytest.fixture
def checkpoints(tmp_path: Path) -> Path:
    """Shipped checkpoints with the logs of their training; no weights, which the board does not read."""
    write_checkpoints(tmp_path / "checkpoints")
    return tmp_path / "checkpoints"


def write_checkpoints(folder: Path) -> None:
    for name, task, weights, best in (
        ("urlstm-128-smnist", "smnist", "a" * 64, 0.985),
        ("lstm-128-smnist", "smnist", "a" * 64, 0.976),
        ("urlstm-128-pmnist", "pmnist", "e" * 64, 0.94),
    ):
        write_checkpoint(folder / name, task, weights, [best - 0.4 * 0.75**epoch for epoch in range(1, 25)])


def write_checkpoint(folder: Path, task: str, weights_sha256: str, accuracies: list[float]) -> None:
    folder.mkdir(parents=True)
    write_training(folder, task, weights_sha256, {"accuracy": max(accuracies)})
    lines: list[dict[str, Any]] = [{"kind": "training", "step": 1, "epoch": 0.1, "loss": 2.3}]
    for epoch, accuracy in enumerate(accuracies, 1):
        scores = {"accuracy": round(accuracy, 4), "cross_entropy": 0.1}
        lines.append({"kind": "validation", "step": 40 * epoch, "epoch": float(epoch), "weights": "trained", **scores})
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def write_training(folder: Path, task: str, weights_sha256: str, validation: dict[str, float]) -> None:
    data = {"name": "mnist", "config": "mnist", "split": "train", "digest": "d" * 64}
    summary = {
        "schema_version": 1,
        "task": task,
        "urzoo_version": "0.1.0",
        "git_commit": None,
        "torch_version": "2.13.0",
        "transformers_version": "5.23.0",
        "started_at": "2026-11-19T08:00:00Z",
        "wall_seconds": 5400.0,
        "epochs": 24.0,
        "steps": 1000,
        "seed": 1,
        "selection_split": "validation",
        "validation": validation,
        "data": {**data, "rows_train": 55_000, "rows_validation": 5_000},
        "hardware": "2 threads of an x86-64 CPU",
        "device": "cpu",
        "backend": "cpu",
        "dtype": "float32",
        "peak_memory_mib": 900.0,
        "recipe_sha256": "c" * 64,
        "weights_sha256": weights_sha256,
    }
    (folder / "training.json").write_text(json.dumps(summary))


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.fixture
def address(pristine: BuiltBoard) -> str:
    return (pristine.out / "index.html").as_uri()


@pytest.fixture
def page(chromium: Page, address: str) -> Iterator[Page]:
    """The example's page at desktop size, which must leave no complaint behind and ask for nothing but itself."""
    chromium.console.clear()
    chromium.requests.clear()
    chromium.dress()
    chromium.open(address)
    yield chromium
    assert chromium.console == []
    assert {re.split(r"[?#]", request)[0] for request in chromium.requests} == {address}
