"""Training shared by processes: the loss curve and weights of one, and nothing half-written where one is lost."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.training.tiny import KINDS, train_tiny
from urzoo.training.log import TrainingLine, ValidationLine, read_log

# Dropout draws other numbers in each process; everything else must be the same.
ROWS = {"model__head_dropout": 0.0, "run__batch_size": 6, "cadence__log_every_steps": 1, "run__epochs": 3}
STREAMS = {"run__batch_size": 6, "cadence__log_every_steps": 1}
CHANGES = {
    "images": ROWS,
    "series": ROWS,
    "texts": ROWS | {f"model__{name}_dropout": 0.0 for name in ("token", "embedding")},
    "language_model": STREAMS
    | {f"model__{name}_dropout": 0.0 for name in ("token", "embedding", "layer", "weight", "head")},
    "synthetic": STREAMS,
}


SHARED = """
import os, sys
from tests.training.tiny import train_tiny
from urzoo.errors import UrzooError
from urzoo.training.report import StopOnSignal

if os.environ["RANK"] == os.environ.get("LOST"):
    ended = StopOnSignal.on_step_end
    def lost(self, arguments, state, control, **options):
        if state.global_step == 5:
            os.kill(os.getpid(), 9)
        return ended(self, arguments, state, control, **options)
    StopOnSignal.on_step_end = lost
try:
    train_tiny(*sys.argv[1:])
except UrzooError as error:
    sys.exit(f"error: {error}")
"""


def launch(kind: str, recipe: Path, runs: Path, processes: int, **extra: str) -> subprocess.CompletedProcess[str]:
    script = runs.parent / "shared.py"
    script.write_text(SHARED)
    options = ["--multi_gpu", "--num_machines", "1", "--num_processes", str(processes), "--main_process_port", "0"]
    options += ["--mixed_precision", "no", "--dynamo_backend", "no"]
    quiet = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path.cwd())}
    arguments = [str(script), kind, str(recipe), str(runs)]
    return subprocess.run(
        [sys.executable, "-m", "accelerate.commands.launch", *options, *arguments],
        env={**os.environ, **quiet, "ACCELERATE_USE_CPU": "true", **extra},
        capture_output=True,
        text=True,
        timeout=400,
    )


def recipe_of(kind: str, folder: Path, **changes: object) -> Path:
    return KINDS[kind][0](folder, **{**CHANGES[kind], **changes})


@pytest.fixture(scope="module", params=[*KINDS])
def alone(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    folder = tmp_path_factory.mktemp("alone")
    return request.param, train_tiny(request.param, recipe_of(request.param, folder), folder)


def assert_same_run(shared: Path, alone: Path) -> None:
    lines, expected = read_log(shared / "log.jsonl"), read_log(alone / "log.jsonl")
    assert [(line.kind, line.step) for line in lines] == [(line.kind, line.step) for line in expected]
    for line, other in zip(lines, expected, strict=True):
        if isinstance(line, TrainingLine) and isinstance(other, TrainingLine):
            assert line.loss == pytest.approx(other.loss, rel=1e-4)
            assert line.gradient_norm == pytest.approx(other.gradient_norm, rel=1e-3)
            assert line.learning_rate == other.learning_rate
        elif isinstance(line, ValidationLine) and isinstance(other, ValidationLine):
            assert line.scores == pytest.approx(other.scores, rel=1e-4)
    weights, others = load_file(shared / "model.safetensors"), load_file(alone / "model.safetensors")
    for name, values in others.items():
        np.testing.assert_allclose(weights[name], values, rtol=1e-3, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("processes", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_several_processes_have_the_loss_curve_of_one(tmp_path: Path, alone: tuple[str, Path], processes: int):
    kind, expected = alone
    runs = tmp_path / "runs"
    recipe = recipe_of(kind, _made(runs))
    done = launch(kind, recipe, runs, processes)
    assert done.returncode == 0, done.stderr
    assert_same_run(runs / "tiny" / "checkpoint", expected)


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


@pytest.mark.slow
def test_a_lost_process_ends_the_run_and_the_same_command_goes_on(tmp_path: Path, alone: tuple[str, Path]):
    kind, expected = alone
    runs = _made(tmp_path / "runs")
    recipe = recipe_of(kind, runs)
    began = time.monotonic()
    done = launch(kind, recipe, runs, 2, LOST="1")
    assert done.returncode != 0
    assert time.monotonic() - began < 200
    # The launcher names the one that was killed; the other one says so too, unless the launcher ends it first.
    assert f"exitcode  : -{signal.SIGKILL.value}" in done.stderr
    assert "error: process 0 of 2 lost another one" in done.stderr or "Signal 15 (SIGTERM)" in done.stderr
    assert not (runs / "tiny" / "checkpoint").exists()
    done = launch(kind, recipe, runs, 2)
    assert done.returncode == 0, done.stderr
    assert_same_run(runs / "tiny" / "checkpoint", expected)


def test_a_batch_that_cannot_be_shared_evenly_is_refused_by_name(tmp_path: Path):
    done = launch("images", recipe_of("images", tmp_path, run__batch_size=7), tmp_path / "runs", 2)
    assert done.returncode != 0
    assert "run.batch_size 7 does not divide among 2 processes" in done.stderr
