import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.training.tiny import KINDS
from urzoo.training.log import read_log


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """By kind the folder of its runs, and how they ended; one process for all, which takes seconds to start."""
    folders = {kind: tmp_path_factory.mktemp("killed") / kind for kind in KINDS}
    for kind, folder in folders.items():
        for way in ("whole", "killed", "stopped"):
            (folder / way).mkdir(parents=True)
            KINDS[kind][0](folder / way)
    driver = Path(__file__).with_name("kill_driver.py")
    done = subprocess.run(
        [sys.executable, driver, *folders.values()],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
    )
    assert done.returncode == 0, done.stderr
    ends = json.loads(done.stdout)
    return {kind: (folder, ends[kind]) for kind, folder in folders.items()}


@pytest.fixture(params=list(KINDS))
def outcome(request, outcomes):
    return outcomes[request.param]


def scores(folder: Path) -> list[dict[str, object]]:
    """The log without what depends on the clock."""
    return [
        line.model_dump(exclude={"wall_seconds", "tokens_per_second"})
        for line in read_log(folder / "tiny" / "checkpoint" / "log.jsonl")
    ]


@pytest.mark.parametrize("way", ["killed", "stopped"])
def test_an_interrupted_run_ends_with_the_weights_of_an_uninterrupted_one(outcome, way):
    folder, ends = outcome
    assert ends["whole"] == [0]
    assert ends[way][-1] == 0
    weights = [folder / run / "tiny" / "checkpoint" / "model.safetensors" for run in ("whole", way)]
    assert weights[0].read_bytes() == weights[1].read_bytes()


@pytest.mark.parametrize("way", ["killed", "stopped"])
def test_the_log_of_an_interrupted_run_has_each_step_once(outcome, way):
    folder, _ = outcome
    assert scores(folder / way) == scores(folder / "whole")


def test_each_step_is_validated_and_logged_once(outcome):
    folder, _ = outcome
    seen = [(line["kind"], line["step"]) for line in scores(folder / "whole")]
    assert len(seen) == len(set(seen))
    assert seen[-2:] == [("training", seen[-1][1]), ("validation", seen[-1][1])]


def test_the_kills_were_kills_and_hit_different_moments(outcome):
    _, ends = outcome
    assert len(ends["killed"]) > 4
    assert set(ends["killed"][:-1]) == {-9}


def test_a_stop_by_the_user_is_told_by_its_exit_code(outcome):
    _, ends = outcome
    assert ends["stopped"] == [130, 130, 0]


def test_nothing_but_the_checkpoint_is_left_of_a_finished_run(outcome):
    folder, _ = outcome
    for way in ("whole", "killed", "stopped"):
        assert sorted(path.name for path in (folder / way / "tiny").iterdir()) == ["checkpoint", "lock"]
