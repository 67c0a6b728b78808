"""Self-training: what a teacher's answers become, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml

from tests.training.tiny import stop_after_a_step, tiny_texts, tiny_texts_recipe
from urzoo import zoo
from urzoo.data import Split
from urzoo.errors import CheckpointError, DataError, RecipeError
from urzoo.hub.card import check_card
from urzoo.processes import Processes
from urzoo.training import job, load_recipe, teacher, train
from urzoo.training.job import Sources
from urzoo.training.kinds.texts import TaughtTextRecipe
from urzoo.training.report import Reporter
from urzoo.zoo.schema import read_training_summary

TEACHER = {"checkpoint": "tiny", "split": "unsupervised", "minimum_confidence": 0.0}


def unlabelled() -> Split:
    split = tiny_texts(rows=60)
    columns = {"text": ["", *split.texts[21:]], "label": np.full(40, -1, np.int64)}
    return replace(split, split="unsupervised", digest="ab" * 32, columns=columns)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of runs in which the teacher `tiny` has been trained."""
    monkeypatch.setattr(job, "load_split", lambda *_, **__: unlabelled())
    train(tiny_texts_recipe(tmp_path), runs=tmp_path, progress=False, data=tiny_texts())
    return tmp_path


def student(folder, **changes):
    return tiny_texts_recipe(folder, **{"name": "student", "teacher": dict(TEACHER), **changes})


def taught(recipe, folder):
    """The texts that the teacher of a recipe is confident about, and its answers."""
    say = Reporter(enabled=False)
    sources = Sources(None, folder / "cache", Processes(0, 1), say, data=None, parents=recipe.parents(folder))
    return teacher.taught_texts(recipe.teacher, recipe.data.name, sources)[:2]


def test_a_student_learns_from_what_its_teacher_is_sure_of(folder):
    place = train(student(folder), runs=folder, progress=False, data=tiny_texts())
    summary = read_training_summary(place / "training.json")
    assert summary.taught_by is not None
    assert summary.taught_by.name == "tiny"
    assert summary.taught_by.weights_sha256 == zoo.info(folder / "tiny" / "checkpoint").weights_sha256
    assert [(data.split, data.rows_train) for data in summary.additional_data] == [("unsupervised", 40)]
    # 35 labelled rows and 40 taught ones, 8 a step, twice.
    assert summary.steps == 2 * (75 // 8)
    assert f"answers of tiny, sha256 {summary.taught_by.weights_sha256[:12]}" in (place / "README.md").read_text()
    check_card(place, [])


def test_the_answers_are_those_of_the_teacher_to_each_text_alone(folder):
    recipe = load_recipe(student(folder))
    assert isinstance(recipe, TaughtTextRecipe)
    texts, labels = taught(recipe, folder)
    place = folder / "tiny" / "checkpoint"
    model, tokenizer = zoo.load(place), zoo.load_tokenizer(place)
    for text, label in zip(texts, labels, strict=True):
        with torch.no_grad():
            logits = model(input_ids=tokenizer(text, return_tensors="pt")["input_ids"].long()).logits
        assert int(logits.argmax()) == label


def test_rows_in_another_order_get_their_own_answers(folder, monkeypatch):
    """Not those in the cache, which are by row."""
    recipe = load_recipe(student(folder))
    taught(recipe, folder)
    [first] = (folder / "cache" / "taught").iterdir()
    monkeypatch.setattr(job, "load_split", lambda *_, **__: unlabelled().select(np.arange(40)[::-1]))
    taught(recipe, folder)
    [other] = set((folder / "cache" / "taught").iterdir()) - {first}
    confidence, turned = (np.load(place / "confidence.npy") for place in (first, other))
    np.testing.assert_allclose(turned, confidence[::-1], rtol=1e-6)
    assert len(set(confidence.round(4))) > 1


def test_classes_in_another_order_get_their_own_answers(folder, monkeypatch):
    """The teacher's are matched by name, and may not come from the cache under the numbers of before."""
    recipe = load_recipe(student(folder))
    _, labels = taught(recipe, folder)
    split = unlabelled()
    column = split.data_set.columns["label"]
    turned = column.model_copy(update={"classes": column.classes[::-1]})
    columns = {**split.data_set.columns, "label": turned}
    split = replace(split, data_set=split.data_set.model_copy(update={"columns": columns}))
    monkeypatch.setattr(job, "load_split", lambda *_, **__: split)
    np.testing.assert_array_equal(taught(recipe, folder)[1], 1 - labels)


def test_only_confident_answers_count_and_none_at_all_is_an_error(folder):
    def count(confidence: float) -> int:
        return len(taught(load_recipe(student(folder, teacher__minimum_confidence=confidence)), folder)[0])

    assert count(0.0) == 40
    assert 0 < count(0.52) <= 40
    with pytest.raises(DataError, match=r"minimum_confidence is 0\.99, but tiny is that sure of no row"):
        count(0.99)


def test_a_teacher_that_has_seen_what_its_student_holds_out_is_refused(folder):
    recipe = load_recipe(student(folder, data__validation_seed=1))
    with pytest.raises(RecipeError, match=r"tiny, whose recipe has other rows held out"):
        recipe.parents(folder)


def test_a_teacher_of_the_data_as_they_were_before_is_refused(folder):
    with pytest.raises(RecipeError, match=r"tiny, which has learnt from imdb \(train\) as it was before it changed"):
        train(student(folder), runs=folder, progress=False, data=tiny_texts(rows=48))


def test_a_teacher_of_another_kind_is_refused(folder):
    recipe = load_recipe(student(folder, teacher__checkpoint="urlstm-128-smnist"))
    with pytest.raises(RecipeError, match=r"a URLSTMForImageClassification for task smnist; expected"):
        recipe.parents(folder)
    recipe = load_recipe(student(folder, teacher__checkpoint="tinny"))
    with pytest.raises(RecipeError, match=r"teacher\.checkpoint is 'tinny', but there is neither"):
        recipe.parents(folder)


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_split_with_labels_is_not_taught(tmp_path, split):
    with pytest.raises(RecipeError, match=f"teacher.split is '{split}', which has labels"):
        load_recipe(student(tmp_path, teacher__split=split)).check()


def test_a_misspelt_key_of_the_teacher_is_named(tmp_path):
    path = student(tmp_path)
    content = yaml.safe_load(path.read_text())
    content["teacher"]["confidence"] = 0.5
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(RecipeError, match=r"confidence"):
        load_recipe(path)


def test_a_run_does_not_go_on_with_another_teacher_than_it_began_with(folder):
    stop_after_a_step("texts", student(folder), folder)
    again = tiny_texts_recipe(folder, run__seed=9)
    train(again, runs=folder, restart=True, progress=False, data=tiny_texts())
    with pytest.raises(CheckpointError, match=r"student holds .* whose teacher has changed since\. Pass --restart"):
        train(student(folder), runs=folder, progress=False, data=tiny_texts())


def test_a_run_does_not_go_on_with_other_texts_to_label(folder, monkeypatch):
    stop_after_a_step("texts", student(folder), folder)
    monkeypatch.setattr(job, "load_split", lambda *_, **__: replace(unlabelled(), digest="cd" * 32))
    with pytest.raises(CheckpointError, match=r"on other data .* Pass --restart"):
        train(student(folder), runs=folder, progress=False, data=tiny_texts())
