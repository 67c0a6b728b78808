import json
import re
import shutil

import pytest
import yaml
from huggingface_hub import ModelCard

from tests.zoo.test_zoo import with_summary
from urzoo import zoo
from urzoo.errors import CheckpointError, ResultError, StaleError
from urzoo.evaluation import load_task
from urzoo.hub.card import check_card, render_card, write_card

from .results import result

NAME = "urlstm-128-smnist"
HOSTILE = '"]\n---\n# Owned\n<script>alert(1)</script> [x](javascript:y) | `z` ${{7*7}} \u202e'


@pytest.fixture
def folder(tmp_path):
    return shutil.copytree(zoo.path(NAME), tmp_path / NAME)


def test_the_card_says_what_the_results_say_and_how_to_repeat_them(folder):
    card = render_card(folder, [result(folder)])
    assert "| 97.89 % |" in card
    assert f"urzoo eval {NAME} --task smnist" in card
    data = ModelCard(card).data
    assert (data.library_name, data.pipeline_tag, data.license) == (
        "transformers",
        "image-classification",
        "apache-2.0",
    )
    assert data.datasets == ["ylecun/mnist"]
    assert {"urzoo", "ur-lstm"} <= set(data.tags)
    assert {(entry.metric_type, entry.metric_value) for entry in data.eval_results} == {
        ("accuracy", 0.9789),
        ("cross_entropy", 0.0712),
    }


def test_each_task_has_an_entry_of_its_own_in_the_front_matter(folder):
    """Where problem and data are the same too."""
    permuted = {"metrics": {"accuracy": 0.5, "cross_entropy": 1.5}, "task": {"name": "pmnist", "version": 1}}
    card = render_card(folder, [result(folder), result(folder, **permuted)])
    (index,) = yaml.safe_load(card.split("\n---\n")[0].removeprefix("---\n"))["model-index"]
    assert {one["task"]["name"]: [each["value"] for each in one["metrics"]] for one in index["results"]} == {
        load_task("pmnist").title: [0.5, 1.5],
        load_task("smnist").title: [0.9789, 0.0712],
    }


def test_a_neural_cache_is_named(folder):
    assert "neural cache" not in render_card(folder, [])
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"neural_cache_size": 2000}))
    assert "the last 2,000 states" in render_card(folder, [])
    (folder / "config.json").write_text(json.dumps(config | {"neural_cache_size": "<b>"}))
    with pytest.raises(CheckpointError, match="neural_cache_size is no number of steps"):
        render_card(folder, [])


def test_a_card_names_all_that_was_learnt_from():
    card = render_card(zoo.path("urlstm-1024-long-text"), [])
    assert ModelCard(card).data.datasets == [
        "stanfordnlp/imdb",
        "Salesforce/wikitext",
    ]
    assert card.count("The training data, ") == 3
    assert "It has read English Wikipedia of 2015, " in card


def test_a_card_offers_texts_to_try(folder):
    assert "widget" not in yaml.safe_load(render_card(folder, []).split("\n---\n")[0].removeprefix("---\n"))
    for name in ("urlstm-512-imdb", "urlstm-1024-long-text"):
        front = yaml.safe_load(render_card(zoo.path(name), []).split("\n---\n")[0].removeprefix("---\n"))
        assert front["widget"]
        assert all(example.keys() == {"text"} for example in front["widget"])


def test_a_card_of_own_data_claims_nothing_of_others(tmp_path):
    """Of a classifier of a user's own texts that began with a language model of urzoo's."""
    folder = shutil.copytree(zoo.path("urlstm-512-imdb"), tmp_path / "mine")
    (folder / "recipe.yaml").write_text("name: mine")
    training = json.loads((folder / "training.json").read_text())
    training |= {"task": "moods", "data": training["data"] | {"name": "diaries"}}
    card = render_card(with_summary(folder, **training), [])
    assert "trained for the task moods, which is none of urzoo's: no result on it is shown here." in card
    assert "It knows diaries, Large Movie Review Dataset" in card
    assert "widget" not in card


def test_the_code_of_a_card_names_a_shipped_checkpoint_and_the_place_of_any_other(folder, tmp_path):
    assert 'urzoo.path("urlstm-128-smnist")' in render_card(zoo.path("urlstm-128-smnist"), [])
    assert "path/to/" not in render_card(zoo.path("urlstm-64-character_trajectories"), [])
    (folder / "recipe.yaml").write_text("name: mine")
    assert 'pipeline("image-classification", model="path/to/mine")' in render_card(folder, [])
    series = shutil.copytree(zoo.path("urlstm-64-character_trajectories"), tmp_path / "mine")
    assert "path/to/" not in render_card(series, [])  # of a copy too, whose name is that of its recipe
    (series / "recipe.yaml").write_text("name: mine")
    card = render_card(series, [])
    assert 'urzoo.load("path/to/mine")' in card
    assert "give the repository's name, OWNER/NAME, in place of the path" in card


def test_a_card_says_what_becomes_of_images_of_other_sizes(folder):
    assert "Other sizes are brought to this one, whatever their proportions." in render_card(folder, [])
    file = folder / "preprocessor_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"do_resize": False}))
    assert "Other sizes are refused." in render_card(folder, [])


def test_the_same_inputs_give_the_same_bytes(folder):
    assert render_card(folder, [result(folder)]) == render_card(folder, [result(folder)])


def test_a_card_that_was_edited_or_is_missing_is_stale(folder):
    write_card(folder, [])
    check_card(folder, [])
    with pytest.raises(StaleError, match="stale"):
        check_card(folder, [result(folder)])
    (folder / "README.md").unlink()
    with pytest.raises(StaleError, match="stale"):
        check_card(folder, [])


def test_a_result_of_other_weights_is_refused(folder):
    other = result(folder)
    other = other.model_copy(update={"model": other.model.model_copy(update={"weights_sha256": "f" * 64})})
    with pytest.raises(ResultError, match="is of weights ffffffffffff"):
        render_card(folder, [other])


def test_two_results_on_one_task_are_refused(folder):
    with pytest.raises(ResultError, match="two results on one task"):
        render_card(folder, [result(folder), result(folder)])


def test_a_partial_result_is_left_out(folder):
    partial = result(folder, samples=10, partial=True)
    assert render_card(folder, [partial]) == render_card(folder, [])


def parts(card):
    """The front matter, and the body without its code blocks."""
    front, body = card.removeprefix("---\n").split("\n---\n", 1)
    return yaml.safe_load(front), re.sub(r"(?ms)^(`{3,})\w*\n.*?^\1$", "", body)


def test_hostile_values_stay_text_in_front_matter_and_body(folder):
    plain_front, plain_body = parts(render_card(folder, []))
    recipe = yaml.safe_load((folder / "recipe.yaml").read_text()) | {"licence": HOSTILE}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe) + "# ```\n# ````\n")
    config = json.loads((folder / "config.json").read_text())
    one_line = " ".join(HOSTILE.split())
    (folder / "config.json").write_text(json.dumps(config | {"gate": one_line, "cell": one_line}))
    front, body = parts(render_card(folder, []))
    assert front.keys() == plain_front.keys()
    assert front | {"license": None} == plain_front | {"license": None}
    assert re.findall("(?m)^#.*", body) == re.findall("(?m)^#.*", plain_body)
    assert body.count("<") == plain_body.count("<")
    assert "](javascript" not in body
    assert "\u202e" not in body


def test_a_name_that_is_none_is_refused(folder):
    recipe = yaml.safe_load((folder / "recipe.yaml").read_text()) | {"name": HOSTILE}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    with pytest.raises(CheckpointError, match="the checkpoint is called"):
        render_card(folder, [])


def test_a_score_outside_of_what_a_checkpoint_was_made_for_says_so(folder, tmp_path):
    pages = {
        "task": {"name": "wikitext103_pages", "version": 1},
        "metrics": {"word_perplexity": 4700.5},
        "primary_metric": "word_perplexity",
    }
    caveat = load_task("wikitext103_pages").caveat_of("wikitext103")
    with_summary(folder, task="wikitext103")
    card = render_card(folder, [result(folder, **pages)])
    assert f"WikiText-103, page by page: {caveat}." in card
    with_summary(folder, task="wikitext103_pages")
    assert caveat not in render_card(folder, [result(folder, **pages)])
