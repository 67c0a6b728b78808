import csv
import io
import json
from pathlib import Path

import pytest
import safetensors.torch
import torch
from PIL import Image

from urzoo.errors import RecipeError, UrzooError, UsageError
from urzoo.training import train
from urzoo.training.synthetic import run as run_module
from urzoo.training.synthetic.curves import train_curves
from urzoo.training.synthetic.log import StreamTrainingLine, StreamValidationLine, read_stream_log
from urzoo.training.synthetic.problems import loss
from urzoo.training.synthetic.recipe import load_synthetic_recipe
from urzoo.training.synthetic.run import train_synthetic
from urzoo.zoo import info, load

CONFIGS = Path(__file__).resolve().parents[3] / "configs"


def tiny(task, *, steps=6, gate="UR", length=500):
    """The recipe cut down to seconds; the length is the recipe's own only where the recipe is read from a file."""
    slug = {"UR": "ur", "O-": "o"}[gate]
    recipe = load_synthetic_recipe(CONFIGS / task / f"urlstm-128-{slug}.yaml")
    return recipe.model_copy(
        update={
            "model": recipe.model.model_copy(update={"hidden_size": 12}),
            "stream": recipe.stream.model_copy(update={"length": length, "validation_sequences": 20}),
            "run": recipe.run.model_copy(update={"steps": steps, "batch_size": 4}),
            "cadence": recipe.cadence.model_copy(
                update={"log_every_steps": 2, "save_every_steps": 2, "validate_every_steps": 3}
            ),
        }
    )


def width(picture):
    with Image.open(picture) as image:
        return image.size[0]


def weights(checkpoint):
    return safetensors.torch.load_file(checkpoint / "model.safetensors")


def scores_of(checkpoint):
    return [(line.step, line.scores) for line in lines_of(checkpoint) if isinstance(line, StreamValidationLine)]


def lines_of(checkpoint):
    return read_stream_log(checkpoint / "log.jsonl")


@pytest.mark.parametrize("task", ["copy", "adding"])
def test_a_run_ends_in_a_complete_checkpoint(tmp_path, task):
    recipe = tiny(task, length=30)
    checkpoint = train_synthetic(recipe, runs=tmp_path, progress=False)
    assert load(checkpoint).config.gate == "UR"
    assert info(checkpoint).task == task
    summary = json.loads((checkpoint / "training.json").read_text())
    assert summary["steps"] == 6
    assert summary["recipe_sha256"] == recipe.sha256
    assert summary["data"]["rows_train"] == 24
    lines = lines_of(checkpoint)
    assert [line.step for line in lines if isinstance(line, StreamTrainingLine)] == [2, 4, 6]
    assert [step for step, _ in scores_of(checkpoint)] == [3, 6]
    assert summary["validation"] == scores_of(checkpoint)[-1][1]
    assert width(checkpoint / "learning_curve.png") > 500
    # A second call finds it done.
    before = (checkpoint / "training.json").read_bytes()
    assert train_synthetic(recipe, runs=tmp_path, progress=False) == checkpoint
    assert (checkpoint / "training.json").read_bytes() == before


@pytest.mark.parametrize("broken_at", [1, 2, 3, 5])
def test_a_run_that_was_broken_off_ends_with_the_same_bits(tmp_path, monkeypatch, broken_at):
    recipe = tiny("copy", length=30)
    whole = train_synthetic(recipe, runs=tmp_path / "whole", progress=False)

    taken = []
    batch = run_module.training_batch

    def breaking(given, step):
        if len(taken) == broken_at:
            raise KeyboardInterrupt
        taken.append(step)
        return batch(given, step)

    monkeypatch.setattr(run_module, "training_batch", breaking)
    with pytest.raises(KeyboardInterrupt):
        train_synthetic(recipe, runs=tmp_path / "broken", progress=False)
    monkeypatch.setattr(run_module, "training_batch", batch)
    broken = train_synthetic(recipe, runs=tmp_path / "broken", progress=False)

    assert weights(whole).keys() == weights(broken).keys()
    assert all(torch.equal(value, weights(broken)[name]) for name, value in weights(whole).items())
    assert scores_of(whole) == scores_of(broken)
    losses = [
        [line.loss for line in lines_of(place) if isinstance(line, StreamTrainingLine)] for place in (whole, broken)
    ]
    assert losses[0] == losses[1]


def test_training_lowers_the_loss(tmp_path):
    # At this length a few hundred steps show it; that the gradient reaches the weights is what is asked here.
    recipe = tiny("adding", steps=150, length=21)
    recipe = recipe.model_copy(
        update={
            "optimiser": recipe.optimiser.model_copy(update={"learning_rate": 0.01}),
            "run": recipe.run.model_copy(update={"steps": 150, "batch_size": 32}),
            "cadence": recipe.cadence.model_copy(
                update={"log_every_steps": 50, "save_every_steps": 150, "validate_every_steps": 150}
            ),
        }
    )
    checkpoint = train_synthetic(recipe, runs=tmp_path, progress=False)
    losses = [line.loss for line in lines_of(checkpoint) if isinstance(line, StreamTrainingLine)]
    assert losses[-1] < 0.7 * losses[0]


def test_another_recipes_states_are_not_gone_on_from(tmp_path, monkeypatch):
    recipe = tiny("copy", length=500)
    monkeypatch.setattr(run_module, "_write_checkpoint", lambda place, training: None)
    train_synthetic(recipe, runs=tmp_path, progress=False)
    monkeypatch.undo()
    other = recipe.with_steps(8)
    with pytest.raises(RecipeError, match=rf"another recipe \(run\.steps: {recipe.run.steps} -> 8\)\. Pass --restart"):
        train_synthetic(other, runs=tmp_path, progress=False)
    train_synthetic(other, runs=tmp_path, restart=True, progress=False)


def test_a_loss_that_is_not_finite_ends_the_run(tmp_path):
    recipe = tiny("copy", length=30)
    recipe = recipe.model_copy(update={"optimiser": recipe.optimiser.model_copy(update={"learning_rate": 1e38})})
    with pytest.raises(UrzooError, match="not finite"):
        train_synthetic(recipe, runs=tmp_path, progress=False)


def test_a_step_without_a_finite_gradient_is_left_out(tmp_path, monkeypatch, capsys):
    # Planted at one step of a run: the weights are as they were, and training goes on.
    weights = []

    class Planted(run_module._Training):
        def _take_step(self, rate, last_norm):
            planted = self.step == 2
            first = next(iter(self._parameters.values()))
            hook = first.register_hook(lambda gradient: gradient * float("inf")) if planted else None
            before = first.detach().clone()
            norm = super()._take_step(rate, last_norm)
            if hook is not None:
                hook.remove()
            weights.append(bool(torch.equal(before, first.detach())))
            assert norm < float("inf")
            return norm

    monkeypatch.setattr(run_module, "_Training", Planted)
    train_synthetic(tiny("copy", length=30), runs=tmp_path, progress=True)
    assert weights[2]
    assert not any(weights[:2] + weights[3:])
    assert "step 3: left out, its gradient is not finite" in capsys.readouterr().err


def test_a_run_whose_gradients_stay_infinite_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(run_module, "loss", lambda *arguments: _Steep.apply(loss(*arguments)))
    with pytest.raises(UrzooError, match=r"gradient was not finite at 10 steps in a row, up to 10\. Lower"):
        train_synthetic(tiny("copy", length=30).with_steps(12), runs=tmp_path, progress=False)


class _Steep(torch.autograd.Function):
    """The value itself, with an infinite gradient."""

    @staticmethod
    def forward(ctx, value):
        return value.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * float("inf")


def test_the_train_command_takes_these_recipes(tmp_path):
    text = (CONFIGS / "copy" / "urlstm-128-ur.yaml").read_text()
    text = text.replace("hidden_size: 128", "hidden_size: 8").replace("steps: 5000", "steps: 1")
    (tmp_path / "recipe.yaml").write_text(text.replace("validation_sequences: 500", "validation_sequences: 2"))
    checkpoint = train(tmp_path / "recipe.yaml", runs=tmp_path / "runs", out=tmp_path / "out", progress=False)
    assert info(checkpoint).task == "copy"


def test_curves_train_every_gating_and_seed_and_plot_them(tmp_path):
    for gate in ("ur", "plain"):
        text = (CONFIGS / "copy" / f"urlstm-128-{gate}.yaml").read_text()
        text = text.replace("hidden_size: 128", "hidden_size: 8").replace("batch_size: 10", "batch_size: 2")
        (tmp_path / "configs" / "copy").mkdir(parents=True, exist_ok=True)
        (tmp_path / "configs" / "copy" / f"{gate}.yaml").write_text(
            text.replace("validation_sequences: 500", "validation_sequences: 2")
        )
    places = {"configs": tmp_path / "configs", "runs": tmp_path / "runs", "out": tmp_path / "out"}
    written = train_curves(tasks=["copy"], seeds=2, steps=1, progress=False, **places)
    assert [path.name for path in written] == ["copy.csv", "copy.png"]
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out" / "copy.csv").read_text())))
    assert {(row["gate"], row["seed"]) for row in rows} == {
        (gate, seed) for gate in ("UR", "--") for seed in ("0", "1")
    }
    assert width(tmp_path / "out" / "copy.png") > 500
    # All runs are done: the same command draws the same files at once.
    before = [path.read_bytes() for path in written]
    train_curves(tasks=["copy"], seeds=2, steps=1, progress=False, **places)
    assert [path.read_bytes() for path in written] == before


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"tasks": ["copying"]}, "unknown task 'copying'"),
        ({"gates": ["XX"]}, "unknown gate 'XX'"),
        ({"seeds": 0}, "seeds is 0"),
        ({"steps": 0}, "steps is 0"),
    ],
)
def test_a_wrong_option_of_curves_is_refused(options, complaint):
    with pytest.raises(UsageError, match=complaint):
        train_curves(**options)
