import os
import signal
import subprocess
import sys

import pytest
import torch

from urzoo.errors import CheckpointError, UrzooError
from urzoo.training.state import RunFolder, StateNumbers, read_numbers, read_tensors


def progress(step):
    return StateNumbers(
        step=step,
        steps=9,
        wall_seconds=1.0,
        peak_memory_mib=1.0,
        average_updates=0,
        loss_sum=0.0,
        logged_step=0,
    )


def test_the_last_two_states_are_kept(tmp_path):
    run = RunFolder(tmp_path)
    for step in (2, 4, 6):
        run.save({"model": {"a": torch.ones(2)}}, progress(step))
    assert sorted(path.name for path in run.states.iterdir()) == ["step-00000004", "step-00000006"]
    assert run.latest() == run.states / "step-00000006"


def test_a_damaged_state_is_refused_with_the_way_back(tmp_path):
    run = RunFolder(tmp_path)
    run.save({"model": {"a": torch.ones(2)}}, progress(2))
    file = run.states / "step-00000002" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(CheckpointError, match="go on from the state before it, or pass --restart"):
        read_tensors(run.states / "step-00000002", "model")


def test_a_state_whose_numbers_are_damaged_is_refused_with_the_way_back(tmp_path):
    run = RunFolder(tmp_path)
    run.save({}, progress(2))
    (run.states / "step-00000002" / "progress.json").write_text('{"step": 2')
    with pytest.raises(CheckpointError, match=r"is not JSON.*Delete .*step-00000002 to go on from the state before it"):
        read_numbers(run.states / "step-00000002")


def test_a_folder_is_held_by_one_run_only(tmp_path):
    first, second = RunFolder(tmp_path).locked(), RunFolder(tmp_path).locked()
    with first, pytest.raises(UrzooError, match=rf"in use by another training run \(process {os.getpid()}\)"):
        second.__enter__()
    with RunFolder(tmp_path).locked():
        pass


def test_the_lock_of_a_killed_process_holds_nobody_up(tmp_path):
    file = tmp_path / "lock"
    kill = "import os, sys; from filelock import FileLock; FileLock(sys.argv[1]).acquire(); os.kill(os.getpid(), 9)"
    killed = subprocess.run([sys.executable, "-c", kill, str(file)])
    assert killed.returncode == -signal.SIGKILL
    file.write_text("1\n")
    with RunFolder(tmp_path).locked():
        assert file.read_text() == f"{os.getpid()}\n"
