"""Results in the Hub's own format: written by `urzoo card`, read back by huggingface_hub."""

import shutil
from pathlib import Path

import pytest
import yaml
from huggingface_hub import EvalResultEntry, HfApi, parse_eval_result_entries

from urzoo import zoo
from urzoo.data.schema import load_data_set
from urzoo.errors import CheckpointError, StaleError
from urzoo.hub.card import check_card, write_card
from urzoo.hub.export import export
from urzoo.hub.pull import pull
from urzoo.hub.push import push

from .conftest import TOKEN
from .results import result
from .server import HubServer

NAME = "urlstm-128-smnist"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    copy = shutil.copytree(zoo.path(NAME), tmp_path / NAME)
    shutil.rmtree(copy / ".eval_results", ignore_errors=True)
    return copy


def entries(folder: Path) -> list[EvalResultEntry]:
    return [
        entry
        for path in sorted((folder / ".eval_results").glob("*.yaml"))
        for entry in parse_eval_result_entries(yaml.safe_load(path.read_bytes()))
    ]


def test_a_result_becomes_a_file_that_the_hubs_own_parser_reads(folder: Path) -> None:
    write_card(folder, [result(folder)])
    mnist = load_data_set("mnist")
    (entry,) = entries(folder)
    assert entry == EvalResultEntry(
        dataset_id=mnist.repository,
        task_id="smnist",
        value=0.9789,
        dataset_revision=mnist.revision,
        date="2026-01-01T00:00:00Z",
        notes=entry.notes,
    )
    assert f"urzoo eval {NAME} --task smnist" in str(entry.notes)
    check_card(folder, [result(folder)])


def test_a_file_that_is_missing_edited_or_left_over_makes_the_card_stale(folder: Path) -> None:
    path = folder / ".eval_results" / "smnist.yaml"
    write_card(folder, [result(folder)])
    content = path.read_text()
    path.write_text(content.replace("0.9789", "0.9999"))
    with pytest.raises(StaleError, match=r"smnist\.yaml is stale"):
        check_card(folder, [result(folder)])
    path.unlink()
    with pytest.raises(StaleError, match=r"smnist\.yaml is stale"):
        check_card(folder, [result(folder)])
    write_card(folder, [result(folder)])
    assert path.read_text() == content
    path.with_name("pmnist.yaml").write_text(content)
    with pytest.raises(StaleError, match=r"pmnist\.yaml is stale"):
        check_card(folder, [result(folder)])
    write_card(folder, [])
    assert list(path.parent.iterdir()) == []
    check_card(folder, [])


def test_files_of_others_are_left_as_they_are(folder: Path) -> None:
    other = folder / ".eval_results" / "theirs.yaml"
    other.parent.mkdir()
    other.write_text("- dataset: {id: some/benchmark, task_id: default}\n  value: 1.5\n")
    before = other.read_bytes()
    write_card(folder, [])
    check_card(folder, [])
    assert other.read_bytes() == before


def test_a_partial_result_and_generated_data_give_no_file(folder: Path) -> None:
    copied = {"data": {**result(folder).data.model_dump(), "name": "copy", "config": "copy", "source": "generated"}}
    copied |= {"task": {"name": "copy", "version": 1}}
    write_card(folder, [result(folder, samples=10, partial=True), result(folder, **copied)])
    assert entries(folder) == []


def test_they_are_pushed_pulled_exported_and_understood_by_the_client(
    folder: Path, hub: HubServer, tmp_path: Path
) -> None:
    write_card(folder, [result(folder)])
    sent = push(folder, "alice/m", token=TOKEN, endpoint=hub.endpoint)
    assert ".eval_results/smnist.yaml" in [file.path for file in sent.plan.files]
    info = HfApi(endpoint=hub.endpoint, token=TOKEN).model_info("alice/m", expand=["evalResults"])
    assert info.eval_results == entries(folder)
    pulled = pull("alice/m", out=tmp_path / "out", token=TOKEN, endpoint=hub.endpoint)
    assert ".eval_results/smnist.yaml" in pulled.files
    export(pulled.folder, tmp_path / "exported", with_code=True)
    assert entries(tmp_path / "exported") == entries(pulled.folder) == entries(folder)
    check_card(tmp_path / "exported", [result(folder)])


@pytest.mark.parametrize("content", ["", "- 1\n", "[}", "- {dataset: {id: a/b}, value: 1}\n", "value: 1\n"])
def test_a_malformed_file_is_refused_before_the_hub_is_asked(content: str, folder: Path, hub: HubServer) -> None:
    (folder / ".eval_results").mkdir()
    (folder / ".eval_results" / "bad.yaml").write_text(content)
    with pytest.raises(CheckpointError, match=r"bad\.yaml is (no list of results|not YAML)"):
        push(folder, "alice/m", token=TOKEN, endpoint=hub.endpoint)
    assert not hub.asked()


def test_the_installed_package_has_the_results_of_its_checkpoints() -> None:
    (entry,) = entries(zoo.path(NAME))
    assert entry.task_id == "smnist"
    assert 0.97 <= entry.value <= 1
