"""Training shared by processes: the loss curve and weights of one, and nothing half-written where one is lost."""

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.training.tiny import KINDS, ROWS, train_tiny
from urzoo.training.log import TrainingLine, ValidationLine, read_log

SHARED = """
import atexit, os, sys

def group_has_ended():
    # Registered first, this runs last: what is left of the group's threads meets the end of the interpreter.
    left = [open(f"/proc/self/task/{thread}/comm").read().strip() for thread in os.listdir("/proc/self/task")]
    if any("gloo" in name for name in left):
        sys.stderr.write(f"threads of the group live on: {left}\\n")
        sys.stderr.flush()
        os._exit(9)

atexit.register(group_has_ended)
from pathlib import Path
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
    for folder in map(Path, sys.argv[1:]):
        train_tiny(folder.name, folder / "recipe.yaml", folder)
except UrzooError as error:
    sys.exit(f"error: {error}")
"""


def command(*folders: Path) -> list[str]:
    """Train the recipe in each of these folders, which are named by kind, there."""
    script = folders[0].parent / "shared.py"
    script.write_text(SHARED)
    return [sys.executable, str(script), *map(str, folders)]


def environment(**extra: str) -> dict[str, str]:
    quiet = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path.cwd())}
    return {**os.environ, **quiet, "ACCELERATE_USE_CPU": "true", **extra}


def launch(*folders: Path, processes: int, **extra: str) -> subprocess.CompletedProcess[str]:
    options = ["--multi_gpu", "--num_machines", "1", "--num_processes", str(processes), "--main_process_port", "0"]
    options += ["--mixed_precision", "no", "--dynamo_backend", "no"]
    python, *script = command(*folders)
    return subprocess.run(
        [python, "-m", "accelerate.commands.launch", *options, *script],
        env=environment(**extra),
        capture_output=True,
        text=True,
        timeout=400,
    )


def made(kind: str, parent: Path) -> Path:
    """A folder of that name with its recipe."""
    folder = parent / kind
    folder.mkdir()
    changes = {"run__batch_size": 6, "cadence__log_every_steps": 3} | ({"run__epochs": 3} if kind in ROWS else {})
    recipe = KINDS[kind][0](folder, **changes)
    # Dropout draws other numbers in each process; everything else must be the same.
    recipe.write_text(re.sub(r"_dropout: [\d.]+", "_dropout: 0.0", recipe.read_text()))
    return folder


@pytest.fixture(scope="module", params=[*KINDS])
def alone(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    folder = made(request.param, tmp_path_factory.mktemp("alone"))
    return request.param, train_tiny(request.param, folder / "recipe.yaml", folder)


@pytest.fixture(scope="module", params=[2, pytest.param(3, marks=pytest.mark.slow)])
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of all kinds, trained one after the other: starting processes takes longer than the training."""
    parent = tmp_path_factory.mktemp("shared")
    done = launch(*(made(kind, parent) for kind in KINDS), processes=request.param)
    assert done.returncode == 0, done.stderr
    return parent


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


def test_several_processes_have_the_loss_curve_of_one(shared: Path, alone: tuple[str, Path]):
    kind, expected = alone
    assert_same_run(shared / kind / "tiny" / "checkpoint", expected)


# Without a launcher, which would end the process that is left before it has said a word.
@pytest.mark.parametrize(
    "kind", [kind if kind == "language_model" else pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS]
)
def test_a_lost_process_is_reported_in_one_line(tmp_path: Path, kind: str):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "LOST": "1"}
    arguments = command(made(kind, tmp_path))
    processes = [
        subprocess.Popen(
            arguments, env=environment(RANK=rank, LOCAL_RANK=rank, **shared), stderr=subprocess.PIPE, text=True
        )
        for rank in ("0", "1")
    ]
    said = [process.communicate(timeout=400)[1] for process in processes]
    assert [process.returncode for process in processes] == [1, -signal.SIGKILL], said
    line = said[0].splitlines()[-1]
    assert line.startswith("error: process 0 of 2 lost another one: "), said[0]
    assert line.endswith("The same command goes on from the last saved state."), said[0]
    assert "Traceback" not in said[0]


def test_processes_that_cannot_meet_are_reported_in_one_line(tmp_path: Path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(taken.getsockname()[1])}
        done = subprocess.run(
            command(made("synthetic", tmp_path)),
            env=environment(WORLD_SIZE="2", RANK="0", LOCAL_RANK="0", **meeting),
            capture_output=True,
            text=True,
            timeout=400,
        )
    assert done.returncode == 1
    assert "error: the processes of this run cannot reach each other: " in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_after_a_lost_process_the_same_command_goes_on(tmp_path: Path, alone: tuple[str, Path]):
    kind, expected = alone
    folder = made(kind, tmp_path)
    done = launch(folder, processes=2, LOST="1")
    assert done.returncode != 0
    assert f"exitcode  : -{signal.SIGKILL.value}" in done.stderr
    assert not (folder / "tiny" / "checkpoint").exists()
    done = launch(folder, processes=2)
    assert done.returncode == 0, done.stderr
    assert_same_run(folder / "tiny" / "checkpoint", expected)
