"""What holds for runs of every kind of recipe."""

import json
import re
import signal
import sys
import textwrap
from pathlib import Path
from types import ModuleType

import pytest
import torch
import yaml

from tests.training.tiny import KINDS, ROWS, stop_after_a_step, tiny_language_model, train_tiny
from urzoo import zoo
from urzoo.errors import CheckpointError, RecipeError, UrzooError, UsageError
from urzoo.schema import read_text
from urzoo.training import checkpoint, kinds, load_recipe, recipe_file
from urzoo.training.checkpoint import write_checkpoint
from urzoo.training.heads import DeadHeadError
from urzoo.training.log import TrainingLine, read_log
from urzoo.training.report import StopOnSignal
from urzoo.training.trainer import RecipeTrainer

EVERY_KIND = pytest.mark.parametrize("kind", list(KINDS))


def recipe_of(kind, folder, **changes):
    return KINDS[kind][0](folder, **changes)


@EVERY_KIND
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_with_its_state_saved(tmp_path, kind, number):
    stop_after_a_step(kind, recipe_of(kind, tmp_path), tmp_path, number=number)
    assert [path.name for path in (tmp_path / "tiny" / "states").iterdir()] == ["step-00000001"]


@EVERY_KIND
def test_a_checkpoint_ships_the_recipe_as_it_was_written(tmp_path, kind):
    recipe = recipe_of(kind, tmp_path)
    recipe.write_text("# The reason for all this.\n" + recipe.read_text())
    place = train_tiny(kind, recipe, tmp_path)
    assert (place / "recipe.yaml").read_bytes() == recipe.read_bytes()
    assert zoo.info(place).training.recipe_sha256 == load_recipe(recipe).sha256
    assert {line.kind for line in read_log(place / "log.jsonl")} == {"training", "validation"}


@EVERY_KIND
def test_what_the_caller_has_set_of_torch_does_not_reach_the_run(tmp_path, kind, monkeypatch):
    recipe = recipe_of(kind, tmp_path)
    plain = train_tiny(kind, recipe, tmp_path)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")  # as accelerate's launcher with such a configuration
    products, torch.backends.mkldnn.matmul.fp32_precision = torch.backends.mkldnn.matmul.fp32_precision, "bf16"
    torch.set_default_dtype(torch.float64)
    try:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16), torch.device("meta"):
            other = train_tiny(kind, recipe, tmp_path, restart=True, out=tmp_path / "other")
        assert torch.get_default_dtype() == torch.float64
        assert torch.backends.mkldnn.matmul.fp32_precision == "bf16"
    finally:
        torch.backends.mkldnn.matmul.fp32_precision = products
        torch.set_default_dtype(torch.float32)
    assert (plain / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()


@EVERY_KIND
def test_what_was_scored_in_16_bits_is_what_the_checkpoint_holds(tmp_path, kind, monkeypatch):
    trained = []

    def kept(folder, trainer, *others):
        trained.append(trainer)
        write_checkpoint(folder, trainer, *others)

    monkeypatch.setattr(checkpoint, "write_checkpoint", kept)
    recipe = recipe_of(kind, tmp_path, run__precision="bf16", optimiser__learning_rate=0.2)
    place = train_tiny(kind, recipe, tmp_path)
    (trainer,) = trained
    model = zoo.load(place)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        scores = trainer.job.scores(model)
    # Cast weights that outlive a step are those of the first: what was trained, and scored, was another model.
    logged = [line for line in read_log(place / "log.jsonl") if line.kind == "validation"]
    assert scores in [line.scores for line in logged]


@EVERY_KIND
def test_the_recipe_is_read_once(tmp_path, kind, monkeypatch):
    recipe, read = recipe_of(kind, tmp_path), []

    def counted(path, **options):
        read.append(path)
        return read_text(path, **options)

    monkeypatch.setattr(recipe_file, "read_text", counted)
    train_tiny(kind, recipe, tmp_path)
    assert read == [recipe]


@EVERY_KIND
def test_data_are_used_or_refused(tmp_path, kind):
    recipe = recipe_of(kind, tmp_path)
    other = KINDS["series" if kind == "images" else "images"][1]()
    with pytest.raises(UsageError, match=r"data is .*, but the recipe .*; leave data out") as refused:
        train_tiny(kind, recipe, tmp_path, data=other)
    assert "\n" not in str(refused.value)


@EVERY_KIND
def test_a_misspelt_key_is_named_with_the_one_that_was_meant(tmp_path, kind):
    recipe = recipe_of(kind, tmp_path)
    for change, expected in (
        (("learning_rate:", "learning_rat:"), "Did you mean 'learning_rate'"),
        (("optimiser:", "optimizer:"), "Did you mean 'optimiser'"),
    ):
        text = recipe.read_text()
        assert change[0] in text
        wrong = tmp_path / "wrong.yaml"
        wrong.write_text(text.replace(*change))
        with pytest.raises(RecipeError, match=expected):
            load_recipe(wrong)


def test_recipes_are_told_apart_by_their_architecture_and_sections(tmp_path):
    for kind in KINDS:
        assert type(load_recipe(recipe_of(kind, tmp_path))).__module__ == f"urzoo.training.kinds.{kind}"


@pytest.mark.parametrize(
    ("kind", "key", "misspelt"),
    [("texts", "tokenizer", "tokeniser"), ("series", "batches", "batch"), ("synthetic", "stream", "streams")],
)
def test_a_misspelt_section_does_not_make_a_recipe_one_of_another_kind(tmp_path, kind, key, misspelt):
    recipe = recipe_of(kind, tmp_path)
    recipe.write_text(recipe.read_text().replace(f"\n{key}:", f"\n{misspelt}:"))
    with pytest.raises(RecipeError, match=f"unknown recipe key '{misspelt}'. Did you mean '{key}'"):
        load_recipe(recipe)


def test_a_misspelt_problem_is_told_with_those_there_are(tmp_path):
    with pytest.raises(RecipeError, match=r"key task is 'coppy': Input should be 'copy' or 'adding'"):
        load_recipe(recipe_of("synthetic", tmp_path, task="coppy"))


@EVERY_KIND
def test_another_recipes_states_are_not_gone_on_from(tmp_path, kind):
    stop_after_a_step(kind, recipe_of(kind, tmp_path), tmp_path)
    with pytest.raises(RecipeError, match=r"another recipe \(run\.seed: .* -> 77\)\. Pass --restart"):
        train_tiny(kind, recipe_of(kind, tmp_path, run__seed=77), tmp_path)


@pytest.mark.parametrize("kind", ["texts", "language_model"])
def test_a_run_does_not_go_on_with_another_tokenizer_than_it_began_with(tmp_path, kind):
    base = tiny_language_model(tmp_path / "base" / "checkpoint")
    changes = {"initialise_from": None, "tokenizer": {"kind": "checkpoint", "checkpoint": str(base)}}
    recipe = recipe_of(kind, tmp_path, **changes)
    stop_after_a_step(kind, recipe, tmp_path)
    tokenizer = base / "tokenizer.json"
    content = json.loads(tokenizer.read_text())
    content["model"]["merges"].reverse()
    tokenizer.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=r"whose tokenizer has changed since\. Pass --restart"):
        train_tiny(kind, recipe, tmp_path)


@pytest.mark.parametrize("kind", ["texts", "language_model"])
def test_a_run_does_not_go_on_from_other_weights_than_it_began_with(tmp_path, kind):
    base = tiny_language_model(tmp_path / "base" / "checkpoint", layer_norm=kind == "language_model")
    changes = {"initialise_from": "base", "tokenizer": {"kind": "checkpoint", "checkpoint": str(base)}}
    if kind == "language_model":
        # A model of the same kind gives all it has.
        config = zoo.load(base).config
        section = yaml.safe_load(recipe_of(kind, tmp_path).read_text())["model"]
        changes["model"] = {key: getattr(config, key) for key in section}
    recipe = recipe_of(kind, tmp_path, **changes)
    stop_after_a_step(kind, recipe, tmp_path)
    weights = dict(zoo.load(base).state_dict())
    model = zoo.load(base)
    with torch.no_grad():
        next(model.parameters()).add_(1.0)
    model.save_pretrained(base)
    assert any(not torch.equal(value, model.state_dict()[name]) for name, value in weights.items())
    with pytest.raises(CheckpointError, match=r"began with other weights than those of base now\. Pass --restart"):
        train_tiny(kind, recipe, tmp_path)


@EVERY_KIND
def test_a_step_whose_gradient_is_not_finite_is_left_out(tmp_path, kind, capsys):
    seen = []
    clip = RecipeTrainer._clip_grad_norm

    def planted(self, model):
        first = next(parameter for parameter in self.network.parameters() if parameter.grad is not None)
        if self.state.global_step == 2:
            first.grad.fill_(float("inf"))
        before = first.detach().clone()
        norm = clip(self, model)
        seen.append((self.state.global_step, before, first))
        return norm

    changed = {}
    end = StopOnSignal.on_step_end

    def compare(self, args, state, control, **options):
        step, before, parameter = seen[-1]
        changed[step] = not torch.equal(before, parameter.detach())
        return end(self, args, state, control, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RecipeTrainer, "_clip_grad_norm", planted)
        patch.setattr(StopOnSignal, "on_step_end", compare)
        place = train_tiny(kind, recipe_of(kind, tmp_path), tmp_path, progress=True)
    assert not changed[2]
    assert changed[1]
    assert changed[3]
    assert "step 3: left out, its gradient is not finite" in capsys.readouterr().err
    assert all(line.gradient_norm < float("inf") for line in read_log(place / "log.jsonl") if line.kind == "training")


def test_the_log_of_a_run_that_goes_on_with_a_step_left_out_is_that_of_the_whole_run(tmp_path):
    clip = RecipeTrainer._clip_grad_norm

    def planted(self, model):
        if self.state.global_step == 1:
            next(parameter for parameter in self.network.parameters() if parameter.grad is not None).grad.fill_(
                torch.inf
            )
        return clip(self, model)

    norms = []
    for way in ("whole", "stopped"):
        (tmp_path / way).mkdir()
        recipe = recipe_of("images", tmp_path / way, cadence__log_every_steps=2)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(RecipeTrainer, "_clip_grad_norm", planted)
            if way == "stopped":
                stop_after_a_step("images", recipe, tmp_path / way)
            place = train_tiny("images", recipe, tmp_path / way)
        norms.append([line.gradient_norm for line in read_log(place / "log.jsonl") if isinstance(line, TrainingLine)])
    assert norms[0] == norms[1]
    assert norms[0][0] > 0


@EVERY_KIND
def test_a_run_whose_gradients_stay_infinite_is_ended(tmp_path, kind):
    clip = RecipeTrainer._clip_grad_norm

    def never(self, model):
        for parameter in self.network.parameters():
            if parameter.grad is not None:
                parameter.grad.fill_(float("inf"))
        return clip(self, model)

    longer = {"run__epochs": 4} if kind in ROWS else {"run__steps": 12}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RecipeTrainer, "_clip_grad_norm", never)
        with pytest.raises(UrzooError, match=r"not finite at 10 steps in a row, up to 10\. Lower optimiser"):
            train_tiny(kind, recipe_of(kind, tmp_path, **longer), tmp_path)


@EVERY_KIND
def test_a_validation_score_that_is_not_finite_ends_the_run_in_one_line(tmp_path, kind, monkeypatch):
    monkeypatch.setattr(RecipeTrainer, "scored", lambda self, _: {self.recipe.score.name: float("nan")})
    with pytest.raises(UrzooError, match=r"^the validation \w+ is nan at step \d\. Lower optimiser") as ended:
        train_tiny(kind, recipe_of(kind, tmp_path), tmp_path)
    assert "\n" not in str(ended.value)


@EVERY_KIND
def test_a_loss_that_is_not_finite_ends_the_run(tmp_path, kind):
    recipe = recipe_of(kind, tmp_path, optimiser__learning_rate=1e38, schedule__initial_fraction=1.0)
    with pytest.raises(UrzooError, match=r"(loss is|gradient was) .*[Ll]ower optimiser\.learning_rate"):
        train_tiny(kind, recipe, tmp_path)
    assert not (tmp_path / "tiny" / "checkpoint").exists()


@pytest.mark.parametrize("kind", ROWS)
def test_a_head_whose_units_have_died_ends_the_run(tmp_path, kind):
    recipe = recipe_of(
        kind,
        tmp_path,
        run__epochs=40,
        run__batch_size=8,
        cadence__log_every_steps=10,
        cadence__save_every_steps=1000,
        cadence__validate_every_epochs=40,
    )
    begin = StopOnSignal.on_train_begin

    def kill_units(self, args, state, control, model=None, **options):
        with torch.no_grad():
            model.head.dense.bias.fill_(-1e4)
        return begin(self, args, state, control, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StopOnSignal, "on_train_begin", kill_units)
        with pytest.raises(DeadHeadError, match=r"no unit of the head .* from step 10 to 110: .* have died") as ended:
            train_tiny(kind, recipe, tmp_path)
    assert "model.head_hidden_size" in str(ended.value)
    assert "\n" not in str(ended.value)
    shares = [line.live_head_share for line in read_log(tmp_path / "tiny" / "log.jsonl") if line.kind == "training"]
    assert set(shares) == {0.0}


@EVERY_KIND
def test_the_share_of_live_head_units_is_logged_where_there_is_such_a_head(tmp_path, kind):
    place = train_tiny(kind, recipe_of(kind, tmp_path), tmp_path)
    shares = [line.live_head_share for line in read_log(place / "log.jsonl") if isinstance(line, TrainingLine)]
    assert all(share is not None and 0 < share <= 1 for share in shares) if kind in ROWS else set(shares) == {None}


def test_the_kind_that_contributing_shows_is_one_of_them(tmp_path, monkeypatch):
    contributing = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text("utf-8")
    [shown] = re.findall(r"^    # urzoo/training/kinds/points\.py\n((?:    .*\n|\n)+)", contributing, re.MULTILINE)
    points = ModuleType("urzoo.training.kinds.points")
    monkeypatch.setitem(sys.modules, points.__name__, points)
    exec(textwrap.dedent(shown), points.__dict__)
    monkeypatch.setattr(kinds, "_KINDS", (*kinds._KINDS, points.PointsRecipe))

    recipe = recipe_of("series", tmp_path)
    content = yaml.safe_load(recipe.read_text())
    for key in ("batches", "augmentation", "further_time_scales"):
        del content[key]
    del content["run"]["label_smoothing"]
    recipe.write_text(yaml.safe_dump(content | {"jiter": 0.1}))
    with pytest.raises(RecipeError, match=r"unknown recipe key 'jiter'\. Did you mean 'jitter'"):
        load_recipe(recipe)
    recipe.write_text(yaml.safe_dump(content | {"jitter": 0.1}))
    assert type(load_recipe(recipe)) is points.PointsRecipe
    stop_after_a_step("series", recipe, tmp_path / "stopped")
    places = [train_tiny("series", recipe, tmp_path / way) for way in ("stopped", "whole")]
    assert len({(place / "model.safetensors").read_bytes() for place in places}) == 1
