"""What a language model writes after fixed prompts, and the card of one that no task evaluates."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from tests.zoo.test_zoo import with_summary
from urzoo import zoo
from urzoo.cli import main
from urzoo.errors import StaleError, UsageError
from urzoo.hub.card import CARD, check_card, render_card, render_files, write_files
from urzoo.hub.export import export
from urzoo.hub.samples import make_samples, prompts

from .checkpoints import image_checkpoint, language_checkpoint


def write_with_samples(folder: Path) -> None:
    write_files(folder, render_files(folder, [], make_samples(folder)))


@pytest.fixture(scope="module")
def sampled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = with_summary(language_checkpoint(tmp_path_factory.mktemp("samples") / "model"), task="text")
    write_with_samples(folder)
    return folder


@pytest.fixture
def folder(sampled: Path, tmp_path: Path) -> Path:
    return shutil.copytree(sampled, tmp_path / "model")


def test_every_prompt_is_continued_in_both_ways_and_shown_on_the_card(folder: Path) -> None:
    made = json.loads((folder / "samples.json").read_text())
    assert [one["prompt"] for one in made["samples"]] == prompts().prompts
    assert made["checkpoint_sha256"] == zoo.info(folder).checkpoint_sha256
    assert all(one["greedy"] and one["sampled"] for one in made["samples"])
    card = (folder / "README.md").read_text()
    assert "## Samples" in card
    assert "| The history of Rome began | " in card
    assert "a repetition penalty of\n1.2, and sampled at temperature 0.8 with seed 0; at most 60 tokens" in card
    check_card(folder, [])


def test_the_card_of_a_model_without_a_task_of_its_own_says_so(folder: Path) -> None:
    card = render_card(folder, [])
    assert ", which is none of urzoo's" in card
    assert "urzoo eval" not in card
    assert yaml.safe_load(card.split("---\n")[1])["pipeline_tag"] == "text-generation"


def test_the_same_is_written_again(folder: Path) -> None:
    before = (folder / "samples.json").read_bytes()
    write_with_samples(folder)
    assert (folder / "samples.json").read_bytes() == before


def test_samples_of_another_checkpoint_or_of_other_prompts_are_stale(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generation = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps(generation | {"bad_words_ids": [[5]]}))
    with pytest.raises(StaleError, match=r"is of another checkpoint or of other prompts.*--samples"):
        check_card(folder, [])
    write_with_samples(folder)
    asked = prompts()
    monkeypatch.setattr("urzoo.hub.samples.prompts", lambda: asked.model_copy(update={"new_tokens": 3}))
    with pytest.raises(StaleError, match="other prompts"):
        render_card(folder, [])


def test_samples_are_part_of_the_checkpoint_but_not_of_one_with_other_weights(folder: Path, tmp_path: Path) -> None:
    assert "samples.json" in export(folder, tmp_path / "same").files
    assert "samples.json" not in export(folder, tmp_path / "stored", dtype="bfloat16").files


def test_only_a_language_model_of_text_writes_samples(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UsageError, match="is no language model of text; leave --samples out"):
        make_samples(image_checkpoint(tmp_path / "image"))
    assert main(["card", str(folder), "--samples", "--check"]) == 2
    assert "leave it out with --check" in capsys.readouterr().err


def test_of_several_none_is_written_if_one_is_refused(folder: Path, tmp_path: Path, capsys) -> None:
    other = image_checkpoint(tmp_path / "image")
    (folder / "samples.json").unlink()
    (folder / CARD).write_text("mine\n", encoding="utf-8")
    results = tmp_path / "results"
    results.mkdir()
    assert main(["card", str(folder), str(other), "--samples", "--results", str(results)]) == 2
    assert "no language model of text" in capsys.readouterr().err
    assert not (folder / "samples.json").exists()
    assert (folder / CARD).read_text(encoding="utf-8") == "mine\n"
    assert main(["card", str(folder), "--samples", "--results", str(results)]) == 0
    assert (folder / "samples.json").is_file()
    check_card(folder, [])
