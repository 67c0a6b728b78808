"""The task files that come with the package."""

import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from urzoo.data import load_split, schema
from urzoo.evaluation import load_task, task, tasks

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["smnist", "pmnist"])
def test_chance_is_the_share_of_the_most_frequent_class(name: str):
    task = load_task(name)
    labels = np.array(load_split(task.data.name, task.data.split).to_dataset()["label"])
    assert task.chance == np.bincount(labels).max() / len(labels)


def test_each_task_has_a_place_of_its_own_on_the_board():
    orders = [load_task(name).order for name in tasks()]
    assert len(set(orders)) == len(orders)


def example(file: str) -> str:
    """The content of a file as CONTRIBUTING shows it."""
    shown = re.search(rf"^    # {file}\n((?:    .*\n)+)", (ROOT / "CONTRIBUTING.md").read_text("utf-8"), re.MULTILINE)
    assert shown, file
    return re.sub(r"(?m)^    ", "", shown[1])


def test_the_new_data_set_and_task_that_contributing_shows(tmp_path, monkeypatch, capsys):
    root, described = tmp_path / "root", tmp_path / "sentences.yaml"
    place = root / "owner" / "sentences" / "plain" / "test-00000-of-00001.parquet"
    place.parent.mkdir(parents=True)
    pq.write_table(pa.table({"text": ["a dull plot", "a fine plot"], "label": [0, 1]}), place)
    described.write_text(example("urzoo/data/sets/sentences.yaml"))
    monkeypatch.setattr(schema, "SETS_FOLDER", tmp_path)
    monkeypatch.setattr(sys, "argv", ["pin_data", str(root), "sentences"])
    schema.load_data_set.cache_clear()
    runpy.run_path(str(ROOT / "scripts" / "pin_data"), run_name="__main__")
    described.write_text(described.read_text() + capsys.readouterr().out)
    split = load_split("sentences", "test", data_root=root)
    assert (split.rows, split.classes, split.texts[0]) == (2, ["dull", "fine"], "a dull plot")
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "sentences.yaml").write_text(example("urzoo/evaluation/tasks/sentences.yaml"))
    taken = {load_task(name).order for name in tasks()}
    alike = {metric.name for metric in load_task("imdb").metrics}
    monkeypatch.setattr(task, "TASKS_FOLDER", tmp_path / "tasks")
    found = load_task("sentences")
    assert (found.data.name, found.primary_metric.name) == ("sentences", "accuracy")
    assert found.order not in taken
    assert {metric.name for metric in found.metrics} == alike
    schema.load_data_set.cache_clear()


def test_dynamic_evaluation_is_for_streams_alone():
    pages = load_task("wikitext103_pages").model_dump()
    settings = {"learning_rate": 0.1, "decay": 0.0, "segment_tokens": 8}
    with pytest.raises(ValueError, match="dynamic_evaluation goes with problem language-modelling-stream only"):
        task.Task.model_validate(pages | {"dynamic_evaluation": settings})
