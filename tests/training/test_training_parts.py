import json

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from urzoo.errors import CheckpointError, UrzooError
from urzoo.training.averaging import WeightAverage
from urzoo.training.curve import draw_learning_curve
from urzoo.training.log import TrainingLine, ValidationLine, parse_line, read_log, write_log
from urzoo.training.schedule import learning_rate_factor
from urzoo.training.sections import ScheduleRecipe
from urzoo.training.state import Progress, RunFolder, read_tensors

LINES = [
    TrainingLine(
        step=50, epoch=0.5, loss=1.5, learning_rate=0.1, gradient_norm=2.0, tokens_per_second=9.0, wall_seconds=3.0
    ),
    ValidationLine(step=100, epoch=1.0, weights="trained", accuracy=0.5, cross_entropy=1.25, wall_seconds=9.0),
]


@pytest.mark.parametrize("kind", ["one-cycle", "warmup-cosine"])
def test_the_learning_rate_rises_to_its_peak_and_falls_to_its_end(kind):
    schedule = ScheduleRecipe(kind=kind, warmup_fraction=0.25, initial_fraction=0.1, final_fraction=0.01)
    factors = [learning_rate_factor(schedule, step, 101) for step in range(101)]
    peak = factors.index(max(factors))
    assert factors[0] == pytest.approx(0.1)
    assert factors[-1] == pytest.approx(0.01)
    assert peak in (25, 26)
    assert max(factors) == pytest.approx(1.0, abs=0.01)
    assert factors[: peak + 1] == sorted(factors[: peak + 1])
    assert factors[peak:] == sorted(factors[peak:], reverse=True)


def test_the_average_is_in_place_only_within_the_block():
    module = nn.Linear(2, 1)
    average = WeightAverage(module, 0.5)
    own = module.weight.detach().clone()
    with torch.no_grad():
        module.weight += 1
    average.update()  # the first decay is 1/10
    with average.in_place():
        assert torch.allclose(module.weight, own + 0.9)
    assert torch.equal(module.weight, own + 1)


def test_a_log_reads_back_and_names_a_bad_line(tmp_path):
    path = tmp_path / "log.jsonl"
    write_log(path, LINES)
    assert read_log(path) == LINES
    path.write_text(path.read_text() + '{"kind": "training", "step": 3}\n')
    with pytest.raises(CheckpointError, match=r"line 3: key training\.epoch is missing"):
        read_log(path)


def test_a_log_line_refuses_an_unknown_key():
    with pytest.raises(ValidationError):
        parse_line(json.dumps({**LINES[0].model_dump(), "los": 1.0}))


def test_the_picture_has_the_same_bytes_each_time(tmp_path):
    for name in ("a.png", "b.png"):
        draw_learning_curve(tmp_path / name, LINES, title="$x_1")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


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
        run.save({"model": {"a": torch.ones(2)}}, progress(step), {})
    assert sorted(path.name for path in run.states.iterdir()) == ["step-00000004", "step-00000006"]
    assert run.latest() == run.states / "step-00000006"


def test_a_damaged_state_is_refused_with_the_way_back(tmp_path):
    run = RunFolder(tmp_path)
    run.save({"model": {"a": torch.ones(2)}}, progress(2), {})
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
