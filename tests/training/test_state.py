import pytest
import torch

from urzoo.errors import CheckpointError, UrzooError
from urzoo.training.state import Progress, RunFolder, read_tensors


def progress(step):
    return Progress(
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


def test_a_folder_is_held_by_one_run_only(tmp_path):
    first, second = RunFolder(tmp_path).locked(), RunFolder(tmp_path).locked()
    with first, pytest.raises(UrzooError, match="in use by another training run"):
        second.__enter__()
    with RunFolder(tmp_path).locked():
        pass
