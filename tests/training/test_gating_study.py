"""`scripts/gating_study`: which runs it makes, and what it does when a head dies. `train` is tested elsewhere."""

import json
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path

import pytest

from urzoo.training import load_recipe
from urzoo.training.heads import DeadHeadError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def script(monkeypatch):
    monkeypatch.chdir(ROOT)
    loader = SourceFileLoader("gating_study", str(ROOT / "scripts" / "gating_study"))
    module = module_from_spec(spec_from_loader("gating_study", loader))
    loader.exec_module(module)
    return module


class Trainings:
    """In place of `train`: reads the real recipe, notes it down and writes a log."""

    def __init__(self, dying_rates=()):
        self.recipes, self.dying_rates = [], dying_rates

    def __call__(self, runs, path):
        recipe = load_recipe(path)
        rate = recipe.optimiser.learning_rate
        folder = runs / recipe.name
        folder.mkdir(parents=True, exist_ok=True)
        if recipe.run.epochs == 20 and recipe.run.seed == 1 and rate in self.dying_rates:
            (folder / "log.jsonl").write_text("".join(dead_line(step) for step in (50, 100, 150)))
            raise DeadHeadError("no unit of the head has answered")
        self.recipes.append(recipe)
        line = {"kind": "validation", "step": 1, "epoch": 1.0, "wall_seconds": 1.0, "accuracy": 0.7}
        (folder / "log.jsonl").write_text(json.dumps(line | {"cross_entropy": abs(rate - 1e-3) + 0.1}) + "\n")
        return folder


def dead_line(step):
    line = {"kind": "training", "step": step, "epoch": 1.0, "loss": 2.3, "learning_rate": 1e-3, "gradient_norm": 0.0}
    return json.dumps(line | {"tokens_per_second": 1.0, "wall_seconds": 1.0, "live_head_share": 0.0}) + "\n"


def test_the_best_rate_of_the_spare_seed_is_used_for_three_seeds_of_every_gating(script, tmp_path, capsys):
    trainings = Trainings()
    script.study("smnist", tmp_path, trainings)
    recipes = trainings.recipes
    assert len(recipes) == 5 * (3 + 3)
    assert [(r.run.seed, r.run.epochs, r.optimiser.learning_rate) for r in recipes[:6]] == [
        *((9, 5, rate) for rate in (5e-4, 1e-3, 2e-3)),
        *((seed, 20, 1e-3) for seed in (0, 1, 2)),
    ]
    assert [(r.model.cell, r.model.gate) for r in recipes[::6]] == [
        *(("lstm", gate) for gate in ("--", "-R", "U-", "UR")),
        ("gru", "UR"),
    ]
    assert all(r.model.tie_input_gate and r.model.hidden_size == 128 and r.task == "smnist" for r in recipes)
    assert {r.name for r in recipes if r.run.epochs == 20} >= {"urlstm-128-plain-seed2-smnist"}
    said = capsys.readouterr().out
    assert "smnist urlstm-128-u seed 0 at 0.001: 70.00% of the held-out rows; 50% after epoch 1, 90% never" in said


def test_all_seeds_of_a_gating_are_repeated_at_half_the_rate_when_a_head_died(script, tmp_path, capsys):
    trainings = Trainings(dying_rates=(1e-3,))
    script.study("pmnist", tmp_path, trainings)
    long = [(r.run.seed, r.optimiser.learning_rate) for r in trainings.recipes if r.run.epochs == 20][:4]
    assert long == [(0, 1e-3), (0, 5e-4), (1, 5e-4), (2, 5e-4)]
    assert "pmnist urlstm-128-plain: a head died; all seeds again at 0.0005" in capsys.readouterr().out


def test_a_head_that_died_on_one_machine_has_died_on_the_next(script, tmp_path):
    script.study("pmnist", tmp_path, Trainings(dying_rates=(1e-3,)), ["urlstm-128-u"])
    immortal = Trainings()
    script.study("pmnist", tmp_path, immortal, ["urlstm-128-u"])
    long = [(r.run.seed, r.optimiser.learning_rate) for r in immortal.recipes if r.run.epochs == 20]
    assert long == [(0, 1e-3), (0, 5e-4), (1, 5e-4), (2, 5e-4)]


def test_one_gating_alone_can_be_trained_so_that_several_processes_share_the_work(script, tmp_path):
    trainings = Trainings()
    script.study("pmnist", tmp_path, trainings, ["urlstm-128-u"])
    assert [(recipe.model.gate, recipe.run.seed) for recipe in trainings.recipes] == [
        *(("U-", 9),) * 3,
        ("U-", 0),
        ("U-", 1),
        ("U-", 2),
    ]
