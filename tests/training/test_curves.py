"""`scripts/curves`: what it trains, and the tables that it writes."""

import csv
import io
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path

import pytest

from urzoo.errors import UsageError
from urzoo.training import load_recipe

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "configs"


@pytest.fixture
def train_curves():
    loader = SourceFileLoader("curves", str(ROOT / "scripts" / "curves"))
    module = module_from_spec(spec_from_loader("curves", loader))
    loader.exec_module(module)
    return module.train_curves


def test_curves_train_every_gating_and_seed_and_write_them_down(train_curves, tmp_path, capsys):
    for gate in ("ur", "plain"):
        text = (CONFIGS / "copy" / f"urlstm-128-{gate}.yaml").read_text()
        text = text.replace("hidden_size: 128", "hidden_size: 8").replace("batch_size: 20", "batch_size: 2")
        (tmp_path / "configs" / "copy").mkdir(parents=True, exist_ok=True)
        (tmp_path / "configs" / "copy" / f"{gate}.yaml").write_text(
            text.replace("validation_sequences: 500", "validation_sequences: 2") + "# a reason\n"
        )
    places = {"configs": tmp_path / "configs", "runs": tmp_path / "runs", "out": tmp_path / "out"}
    train_curves(tasks=["copy"], seeds=2, steps=1, **places)
    written = sorted((tmp_path / "out").iterdir())
    assert [path.name for path in written] == ["copy.csv"]
    assert str(written[0]) in capsys.readouterr().out
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out" / "copy.csv").read_text())))
    assert {(row["gate"], row["seed"]) for row in rows} == {
        (gate, seed) for gate in ("UR", "--") for seed in ("0", "1")
    }
    # The recipe of a run is the one in configs, but for the seed, the name and the steps that were asked for.
    recipe = tmp_path / "runs" / "urlstm-128-ur-copy-seed1" / "checkpoint" / "recipe.yaml"
    assert recipe.read_text().endswith("# a reason\n")
    made = load_recipe(recipe)
    assert (made.name, made.run.seed, made.run.steps) == ("urlstm-128-ur-copy-seed1", 1, 1)
    source = load_recipe(tmp_path / "configs" / "copy" / "ur.yaml")
    same = {"name": source.name, "run": source.run}
    assert made.model_copy(update=same) == source
    # All runs are done: the same command writes the same file at once.
    before = [path.read_bytes() for path in written]
    train_curves(tasks=["copy"], seeds=2, steps=1, **places)
    assert [path.read_bytes() for path in written] == before
    # A table that holds other gatings and seeds keeps them.
    places["out"] = tmp_path / "parts"
    for gate, seeds in (("UR", 2), ("--", 1), ("--", 2)):
        train_curves(tasks=["copy"], gates=[gate], seeds=seeds, steps=1, **places)
    assert (tmp_path / "parts" / "copy.csv").read_bytes() == before[0]
    (tmp_path / "parts" / "copy.csv").write_text("task,gate\ncopy,UR\n")
    with pytest.raises(UsageError, match=r"copy.csv line 2: expected task,gate,seed,step,score"):
        train_curves(tasks=["copy"], seeds=1, steps=1, **places)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"tasks": ["copying"]}, "unknown task 'copying'"),
        ({"gates": ["XX"]}, "unknown gate 'XX'"),
        ({"seeds": 0}, "seeds is 0"),
        ({"steps": 0}, "steps is 0"),
    ],
)
def test_a_wrong_option_of_curves_is_refused(train_curves, options, complaint):
    with pytest.raises(UsageError, match=complaint):
        train_curves(**options)
