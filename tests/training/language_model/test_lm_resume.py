import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch

from tests.training.language_model.lm_tiny import tiny_lm_recipe
from urzoo.training.language_model.log import read_lm_log

SHARED = """
import sys
from tests.training.language_model.lm_tiny import articles, text_split
from urzoo.training import train
from urzoo.training.text import documents
documents.load_split = lambda name, split, data_root=None: text_split(name, split, articles(30))
train(sys.argv[1], runs=sys.argv[2], progress=False)
"""
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path.cwd()), "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    folder = tmp_path_factory.mktemp("killed")
    driver = Path(__file__).with_name("lm_kill_driver.py")
    done = subprocess.run(
        [sys.executable, driver, folder], capture_output=True, text=True, check=False, env=ENVIRONMENT
    )
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout)


def scores(folder):
    """The log without what depends on the clock."""
    lines = read_lm_log(folder / "tiny-lm" / "checkpoint" / "log.jsonl")
    return [line.model_dump(exclude={"wall_seconds", "tokens_per_second"}) for line in lines]


@pytest.mark.parametrize("way", ["killed", "stopped"])
def test_an_interrupted_run_ends_with_the_weights_of_an_uninterrupted_one(outcome, way):
    folder, ends = outcome
    assert ends["whole"] == [0]
    assert ends[way][-1] == 0
    for name in ("model.safetensors", "tokenizer.json"):
        files = [folder / run / "tiny-lm" / "checkpoint" / name for run in ("whole", way)]
        assert files[0].read_bytes() == files[1].read_bytes()
    assert scores(folder / way) == scores(folder / "whole")


def test_the_interruptions_were_such_and_nothing_is_left_of_them(outcome):
    folder, ends = outcome
    assert len(ends["killed"]) > 5
    assert set(ends["killed"][:-1]) == {-9}
    assert ends["stopped"] == [130, 130, 0]
    for way in ("whole", "killed", "stopped"):
        assert sorted(path.name for path in (folder / way / "tiny-lm").iterdir()) == ["checkpoint", "lock"]


def test_two_processes_end_with_the_weights_of_one(tmp_path):
    # Without dropout, which each process draws for its own rows.
    still = {f"model__{name}_dropout": 0.0 for name in ("token", "embedding", "layer", "weight", "head")}
    script = tmp_path / "shared.py"
    script.write_text(SHARED)
    recipe = tiny_lm_recipe(tmp_path, **still)
    alone = [sys.executable, str(script), str(recipe), str(tmp_path / "alone")]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    for command in (alone, [*launch, str(script), str(recipe), str(tmp_path / "shared")]):
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=ENVIRONMENT)
        assert done.returncode == 0, done.stderr
    one, two = (
        safetensors.torch.load_file(tmp_path / run / "tiny-lm" / "checkpoint" / "model.safetensors")
        for run in ("alone", "shared")
    )
    # Adam's first steps divide small gradients by themselves, which makes much of their rounding.
    assert all(torch.allclose(one[name], two[name], atol=2e-4) for name in one)
    losses = [
        [line["loss"] for line in scores(tmp_path / run) if line["kind"] == "training"] for run in ("alone", "shared")
    ]
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)
