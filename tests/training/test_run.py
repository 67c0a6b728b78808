import json
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.tiny import stop_after_a_step, tiny_data, tiny_recipe
from urzoo import zoo
from urzoo.data import schema
from urzoo.errors import CheckpointError, DataError, RecipeError, UrzooError, UsageError
from urzoo.evaluation.metrics import Accuracy, CrossEntropy, computed
from urzoo.hub.card import check_card
from urzoo.models import PixelSequenceImageProcessor
from urzoo.training import TrainingStoppedError, load_recipe, train
from urzoo.training.log import ValidationLine, read_log
from urzoo.training.report import StopOnSignal
from urzoo.zoo.schema import read_training_summary

FILES = [
    "README.md",
    "config.json",
    "learning_curve.png",
    "log.jsonl",
    "model.safetensors",
    "preprocessor_config.json",
    "recipe.yaml",
    "training.json",
]


KIND = "images"


@pytest.fixture
def stopped(tmp_path):
    """A run that was asked to stop after its first step."""
    recipe = tiny_recipe(tmp_path)
    stop_after_a_step("images", recipe, tmp_path)
    return tmp_path, recipe


def test_a_run_ends_in_a_complete_checkpoint_that_loads(checkpoint):
    assert sorted(path.name for path in checkpoint.iterdir()) == FILES
    assert (checkpoint / "recipe.yaml").read_bytes() == (checkpoint.parents[1] / "recipe.yaml").read_bytes()
    assert json.loads((checkpoint / "config.json").read_text())["use_cache"] is True
    assert zoo.load(checkpoint).config.hidden_size == 4
    assert zoo.info(checkpoint).name == "tiny"
    check_card(checkpoint, [])


def test_the_best_averaged_weights_have_the_scores_that_the_summary_claims(checkpoint):
    summary = read_training_summary(checkpoint / "training.json")
    validations = [line for line in read_log(checkpoint / "log.jsonl") if isinstance(line, ValidationLine)]
    assert summary.validation["cross_entropy"] == min(line.scores["cross_entropy"] for line in validations)
    assert {line.weights for line in validations} == {"averaged"}

    from urzoo.data import hold_out

    _, validation = hold_out(tiny_data(), 10, 0)
    inputs = PixelSequenceImageProcessor.from_pretrained(checkpoint)(validation.images, return_tensors="pt")
    with torch.no_grad():
        logits = zoo.load(checkpoint)(**inputs).logits.numpy()
    accuracy = computed(Accuracy, predictions=np.argmax(logits, 1), references=validation.labels)["accuracy"]
    entropy = computed(CrossEntropy, predictions=logits, references=validation.labels)["cross_entropy"]
    assert summary.validation["accuracy"] == pytest.approx(accuracy)
    assert summary.validation["cross_entropy"] == pytest.approx(entropy, rel=1e-5)


def test_a_finished_run_says_so_and_changes_nothing(checkpoint, capsys):
    folder = checkpoint.parents[1]
    before = (checkpoint / "training.json").stat().st_mtime_ns
    assert train(folder / "recipe.yaml", runs=folder, data=tiny_data()) == checkpoint
    assert "already trained" in capsys.readouterr().err
    assert (checkpoint / "training.json").stat().st_mtime_ns == before


def test_a_checkpoint_of_another_recipe_is_not_replaced_unasked(checkpoint):
    folder = checkpoint.parents[1]
    other = folder / "other"
    other.mkdir()
    with pytest.raises(UrzooError, match="not the checkpoint of this recipe"):
        train(tiny_recipe(other, run__seed=9), runs=folder, out=checkpoint, progress=False, data=tiny_data())


def test_a_changed_recipe_is_refused_with_the_changed_key_and_the_remedy(stopped):
    folder, recipe = stopped
    tiny_recipe(folder, optimiser__learning_rate=0.5)
    with pytest.raises(RecipeError, match=r"optimiser\.learning_rate: 0\.02 -> 0\.5\)\. Pass --restart"):
        train(recipe, runs=folder, progress=False, data=tiny_data())


def test_a_number_in_another_spelling_is_the_same_recipe(stopped):
    folder, recipe = stopped
    tiny_recipe(folder, optimiser__gradient_norm_clip=1)
    place = train(recipe, runs=folder, progress=False, data=tiny_data())
    # As it was spelt last: the checkpoint's recipe is the one whose digest it names.
    assert (place / "recipe.yaml").read_bytes() == recipe.read_bytes()
    assert read_training_summary(place / "training.json").recipe_sha256 == load_recipe(recipe).sha256


def test_a_number_in_another_spelling_is_trained_already(checkpoint, capsys):
    recipe = tiny_recipe(checkpoint.parents[1], optimiser__gradient_norm_clip=1)
    assert train(recipe, runs=checkpoint.parents[1], data=tiny_data()) == checkpoint
    assert "already trained" in capsys.readouterr().err


def test_other_data_are_refused(stopped):
    folder, recipe = stopped
    with pytest.raises(CheckpointError, match="other data"):
        train(recipe, runs=folder, progress=False, data=tiny_data(44))
    # The digest of a split is that of all its rows in any order.
    for rows in (np.arange(45)[::-1], np.arange(44)):
        with pytest.raises(CheckpointError, match="on rows in another order, or on some of them alone"):
            train(recipe, runs=folder, progress=False, data=tiny_data().select(rows))


def test_a_recipe_is_not_trained_already_where_the_data_have_changed(checkpoint, monkeypatch):
    folder = checkpoint.parents[1]
    for data in (tiny_data(46), tiny_data().select(np.arange(44)), tiny_data().select(np.arange(45)[::-1])):
        with pytest.raises(CheckpointError, match=r"on other rows than those of mnist \(train\) now. Pass --restart"):
            train(folder / "recipe.yaml", runs=folder, progress=False, data=data)
    monkeypatch.setitem(schema.LOCAL, "mnist", schema.load_data_set("mnist"))
    with pytest.raises(CheckpointError, match=r"on other rows than those of mnist \(train\) now. Pass --restart"):
        train(folder / "recipe.yaml", runs=folder, progress=False)


def test_a_recipe_is_not_trained_already_where_classes_have_other_names(checkpoint, monkeypatch):
    folder, own = checkpoint.parents[1], schema.load_data_set("mnist")
    label = own.columns["label"]
    monkeypatch.setitem(schema.LOCAL, "mnist", own)
    assert train(folder / "recipe.yaml", runs=folder, progress=False, data=tiny_data()) == checkpoint
    renamed = label.model_copy(update={"classes": ["nought", *label.classes[1:]]})
    renamed = own.model_copy(update={"columns": own.columns | {"label": renamed}})
    monkeypatch.setitem(schema.LOCAL, "mnist", renamed)
    with pytest.raises(CheckpointError, match=r"its classes are called otherwise than those of mnist now\. Pass --re"):
        train(folder / "recipe.yaml", runs=folder, progress=False, data=tiny_data())


@pytest.mark.parametrize(
    ("lost", "expected"),
    [
        ("model.safetensors", "model.safetensors is missing or damaged"),
        ("optimizer.safetensors", "optimizer.safetensors is missing or damaged"),
        ("average.safetensors", "average.safetensors is missing or damaged"),
        ("best.safetensors", "best.safetensors is missing or damaged"),
        ("progress.json", "cannot read .*progress.json"),
        ("log.jsonl", "log.jsonl has no line of step 1, as .* has"),
        ("run.json", "holds states, but .*run.json, which says what they belong to, is missing"),
    ],
)
def test_a_run_that_lost_a_file_does_not_go_on_without_it(tmp_path, lost, expected):
    # Of one step an epoch: the state holds a validation and a line of the log.
    recipe = tiny_recipe(tmp_path, run__batch_size=35, cadence__log_every_steps=1)
    stop_after_a_step("images", recipe, tmp_path)
    (file,) = (tmp_path / "tiny").rglob(lost)
    file.unlink()
    with pytest.raises(CheckpointError, match=expected) as refused:
        train(recipe, runs=tmp_path, progress=False, data=tiny_data())
    assert "\n" not in str(refused.value)


def test_a_kill_while_the_states_of_a_finished_run_are_removed_leaves_it_finished(tmp_path, capsys):
    recipe, rmtree = tiny_recipe(tmp_path), shutil.rmtree

    def killed(folder, **options):
        if folder.name == "states":
            (folder / "step-00000008" / "model.safetensors").unlink()
            raise KeyboardInterrupt
        rmtree(folder, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, runs=tmp_path, progress=False, data=tiny_data())
    place = train(recipe, runs=tmp_path, data=tiny_data())
    assert "already trained" in capsys.readouterr().err
    assert zoo.info(place).name == "tiny"


def test_what_is_no_checkpoint_is_never_replaced(tmp_path, monkeypatch):
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis.tex").write_text("years of work")
    for restart in (False, True):
        with pytest.raises(UsageError, match=r"home holds files, but no checkpoint of urzoo's\. Name another"):
            train(tiny_recipe(tmp_path), runs=tmp_path, out=home, restart=restart, progress=False, data=tiny_data())
    monkeypatch.chdir(home)
    Path("link").symlink_to("nowhere")
    for out in (".", "thesis.tex", "link"):
        with pytest.raises(UsageError, match=rf"--out {out} is a file, a broken link, the current folder or a mount"):
            train(tiny_recipe(tmp_path), runs=tmp_path, out=out, restart=True, progress=False, data=tiny_data())
    below = home / "thesis.tex" / "checkpoint"
    with pytest.raises(UrzooError, match=r"cannot write to .*thesis\.tex, the folder of checkpoint"):
        train(tiny_recipe(tmp_path), runs=tmp_path, out=below, progress=False, data=tiny_data())
    assert (home / "thesis.tex").read_text() == "years of work"


@pytest.mark.parametrize("out", ["tiny/states", "tiny/states/x", "tiny", ".", "cache/x", "tiny/../tiny/states"])
def test_a_checkpoint_is_not_put_where_the_run_keeps_its_state(tmp_path, out):
    with pytest.raises(UsageError, match=r"--out .* lies in .*, or has it in it, which is urzoo's own; name another"):
        train(tiny_recipe(tmp_path), runs=tmp_path, out=tmp_path / out, progress=False, data=tiny_data())


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="this system has no folder that takes nothing")
def test_a_folder_that_takes_nothing_is_refused_before_training(tmp_path):
    with pytest.raises(UrzooError, match="cannot write to /proc, the folder of x: "):
        train(tiny_recipe(tmp_path), runs=tmp_path, out="/proc/x", progress=False, data=tiny_data())
    assert not list(tmp_path.glob("**/states"))


def test_a_restart_that_cannot_begin_loses_no_state(stopped):
    folder, recipe = stopped
    with pytest.raises(DataError, match=r"validation_rows is 10, expected less than the 10 rows of mnist \(train\)"):
        train(recipe, runs=folder, restart=True, progress=False, data=tiny_data(10))
    assert [path.name for path in (folder / "tiny" / "states").iterdir()] == ["step-00000001"]


def test_a_stopped_run_says_that_restart_would_lose_its_state(tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StopOnSignal, "on_train_begin", lambda self, *_, **__: signal.raise_signal(signal.SIGTERM))
        with pytest.raises(TrainingStoppedError, match="goes on from there if --restart is left out"):
            train(tiny_recipe(tmp_path), runs=tmp_path, restart=True, progress=False, data=tiny_data())


def test_no_file_of_a_state_is_a_pickle(stopped):
    folder, _ = stopped
    files = [path.name for path in (folder / "tiny" / "states").rglob("*") if path.is_file()]
    assert files
    assert {name.rpartition(".")[2] for name in files} == {"safetensors", "json"}


def test_a_loss_that_is_not_finite_ends_the_run_without_a_state(tmp_path):
    recipe = tiny_recipe(tmp_path, optimiser__learning_rate=1e30, schedule__initial_fraction=1.0)
    with pytest.raises(UrzooError, match=r"(loss is|gradient was) .*[Ll]ower optimiser\.learning_rate"):
        train(recipe, runs=tmp_path, progress=False, data=tiny_data())
    assert not (tmp_path / "tiny" / "checkpoint").exists()


def test_a_batch_larger_than_the_data_is_refused(tmp_path):
    with pytest.raises(UrzooError, match="batch_size is 64, but only 35 rows"):
        train(tiny_recipe(tmp_path, run__batch_size=64), runs=tmp_path, progress=False, data=tiny_data())


def test_data_of_another_kind_are_refused_with_what_is_expected(tmp_path):
    with pytest.raises(UsageError, match=r"data is a str, expected a Split, as urzoo\.data\.load_split gives it"):
        train(tiny_recipe(tmp_path), runs=tmp_path, progress=False, data="mnist")


def test_too_little_memory_is_told_with_what_to_lower(tmp_path):
    with pytest.raises(UrzooError, match=r"run\.batch_size 8 and model\.hidden_size 100000000: .* Lower them") as ended:
        train(tiny_recipe(tmp_path, model__hidden_size=10**8), runs=tmp_path, progress=False, data=tiny_data())
    assert "\n" not in str(ended.value)
