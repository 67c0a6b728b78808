"""Checkpoints are found by name, and loaded whole or not at all."""

import json
import os
import shutil
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel
from transformers.utils import logging

import urzoo
from tests.zoo.conftest import make_checkpoint
from urzoo.errors import BackendError, CheckpointError, UsageError
from urzoo.evaluation import result_name
from urzoo.zoo import (
    checkpoint_name,
    checkpoints,
    info,
    load,
    load_image_processor,
    lookup,
    path,
    study_checkpoints,
)
from urzoo.zoo.schema import TrainingSummary
from urzoo.zoo.weights import file_sha256, parameter_count, read_header

WEIGHTS = "model.safetensors"


def summary(folder: Path) -> dict:
    return TrainingSummary(
        task="smnist",
        urzoo_version="0.1.0",
        git_commit=None,
        torch_version="2.13.0",
        transformers_version="5.23.0",
        started_at="2026-01-02T03:04:05Z",
        wall_seconds=1.0,
        epochs=1.0,
        steps=10,
        seed=0,
        selection_split="validation",
        validation={"accuracy": 0.5},
        data={
            "name": "mnist",
            "config": "mnist",
            "split": "train",
            "digest": "0" * 64,
            "rows_train": 9,
            "rows_validation": 1,
        },
        hardware="a processor, 2 threads",
        device="cpu",
        backend="reference",
        dtype="float32",
        peak_memory_mib=1.0,
        recipe_sha256="0" * 64,
        weights_sha256=file_sha256(folder / WEIGHTS),
    ).model_dump(mode="json")


def with_summary(folder: Path, **changes: object) -> Path:
    (folder / "training.json").write_text(json.dumps({**summary(folder), **changes}))
    return folder


def edit_config(folder: Path, **changes: object) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def test_a_checkpoint_loads_with_the_numbers_it_was_saved_with(checkpoint: Path):
    model = load(checkpoint)
    assert not model.training
    saved = load_file(checkpoint / WEIGHTS)
    state = model.state_dict()
    assert set(saved) == set(state)
    assert all(torch.equal(saved[name], state[name]) for name in saved)


def test_the_package_offers_the_zoo(checkpoint: Path):
    assert type(urzoo.load(checkpoint)).__name__ == "URLSTMForImageClassification"
    assert urzoo.path(checkpoint) == checkpoint
    assert urzoo.info(checkpoint).name == "small"
    assert urzoo.checkpoints() == checkpoints()


def test_info_tells_what_the_files_say(checkpoint: Path):
    found = info(with_summary(checkpoint))
    assert (found.cell, found.gate, found.hidden_size, found.num_layers) == ("lstm", "UR", 8, 1)
    assert found.parameters == sum(p.numel() for p in load(checkpoint).parameters())
    assert found.task == "smnist"
    assert found.weights_sha256 == file_sha256(checkpoint / WEIGHTS)
    assert "folder" not in found.model_dump()


def test_what_decides_the_answers_decides_the_checkpoints_digest(checkpoint: Path):
    before = info(checkpoint).checkpoint_sha256
    (checkpoint / "README.md").write_text("a card")
    assert info(with_summary(checkpoint)).checkpoint_sha256 == before
    edit_config(checkpoint, head_dropout=0.2)
    changed = info(checkpoint).checkpoint_sha256
    assert changed != before
    shutil.rmtree(checkpoint)
    make_checkpoint(checkpoint, permutation_seed=0)
    assert info(checkpoint).checkpoint_sha256 not in {before, changed}


def test_shipped_checkpoints_are_found_by_name(checkpoint: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lookup, "CHECKPOINTS_FOLDER", checkpoint.parent)
    assert checkpoints() == ["small"]
    assert path("small") == checkpoint
    assert info("small").source == "shipped"
    with pytest.raises(UsageError, match="Did you mean 'small'"):
        path("smal")


def test_the_networks_of_the_study_are_found_in_a_clone_by_name_and_by_folder(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    here = tmp_path / "leaderboard" / "gating_study" / "small-seed0"
    shutil.copytree(checkpoint, here)
    assert "small-seed0" not in study_checkpoints()
    monkeypatch.chdir(tmp_path)
    assert study_checkpoints() == ["small-seed0"]
    assert "small-seed0" not in checkpoints()
    for name in ("small-seed0", "leaderboard/gating_study/small-seed0", here):
        assert info(name).source == "study"
        assert result_name(info(name)) == "small-seed0"
    with pytest.raises(UsageError, match="Did you mean 'small-seed0'"):
        path("small-seed1")


def test_the_folder_of_a_run_gives_its_name(checkpoint: Path):
    run = checkpoint.parent / "runs" / "urlstm-9" / "checkpoint"
    shutil.copytree(checkpoint, run)
    assert checkpoint_name(run) == "urlstm-9"


@pytest.mark.parametrize("name", ["nowhere", "no/where"])
def test_an_unknown_name_is_refused(name: str):
    with pytest.raises(UsageError, match=f"unknown checkpoint '{name}'"):
        path(name)


def test_a_missing_folder_and_one_without_config_are_refused(tmp_path: Path):
    for kind in (UsageError, CheckpointError):
        with pytest.raises(kind, match="there is no folder"):
            path(tmp_path / "nowhere")
        with pytest.raises(kind, match=r"has no config\.json"):
            path(tmp_path)


def test_every_truncation_is_refused(checkpoint: Path):
    content = (checkpoint / WEIGHTS).read_bytes()
    for length in [0, 1, 7, 8, 9, 100, len(content) // 2, len(content) - 1]:
        (checkpoint / WEIGHTS).write_bytes(content[:length])
        with pytest.raises(CheckpointError, match="truncated or damaged"):
            load(checkpoint)


def test_appended_bytes_are_refused(checkpoint: Path):
    (checkpoint / WEIGHTS).write_bytes((checkpoint / WEIGHTS).read_bytes() + b"\0")
    with pytest.raises(CheckpointError, match="truncated or damaged"):
        load(checkpoint)


def test_every_flipped_bit_is_found_where_training_left_its_digest(checkpoint: Path):
    with_summary(checkpoint)
    content = (checkpoint / WEIGHTS).read_bytes()
    for position in range(0, len(content), 97):
        damaged = bytearray(content)
        damaged[position] ^= 1 << (position % 8)
        (checkpoint / WEIGHTS).write_bytes(damaged)
        with pytest.raises(CheckpointError) as caught:
            load(checkpoint)
        assert "\n" not in str(caught.value)
    (checkpoint / WEIGHTS).write_bytes(content)
    load(checkpoint)


def test_a_flipped_header_is_refused_also_without_a_digest(checkpoint: Path):
    content = (checkpoint / WEIGHTS).read_bytes()
    header = int.from_bytes(content[:8], "little")
    accepted = 0
    for position in range(8 + header):
        damaged = bytearray(content)
        damaged[position] ^= 0x02
        (checkpoint / WEIGHTS).write_bytes(damaged)
        try:
            read_header(checkpoint / WEIGHTS)
            load(checkpoint)
            accepted += 1
        except CheckpointError as error:
            assert "\n" not in str(error)  # noqa: PT017 - most positions raise, some flip the free-form metadata
    # What a flip may change unseen is the free-form metadata, {"format": "pt"}.
    assert accepted < 40


def test_no_weights_no_model(checkpoint: Path):
    (checkpoint / WEIGHTS).unlink()
    with pytest.raises(CheckpointError, match=r"has no model\.safetensors"):
        load(checkpoint)


def test_pickled_weights_are_never_looked_at(checkpoint: Path):
    torch.save(load_file(checkpoint / WEIGHTS), checkpoint / "pytorch_model.bin")
    (checkpoint / WEIGHTS).unlink()
    with pytest.raises(CheckpointError, match=r"has no model\.safetensors"):
        load(checkpoint)


@pytest.mark.parametrize("change", ["shape", "missing", "stray", "nan"])
def test_weights_that_do_not_fit_are_refused(checkpoint: Path, change: str):
    weights = load_file(checkpoint / WEIGHTS)
    name = next(iter(weights))
    if change == "shape":
        weights[name] = torch.zeros(3, 3)
        expected = "has shape \\(3, 3\\), expected"
    elif change == "missing":
        del weights[name]
        expected = f"lacks '{name}'"
    elif change == "stray":
        weights["stray"] = torch.zeros(1)
        expected = "holds 'stray'"
    else:
        weights[name].view(-1)[0] = float("nan")
        expected = "holds a NaN or an infinity"
    save_file(weights, checkpoint / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=expected):
        load(checkpoint)


def test_an_adapter_beside_the_model_is_refused(checkpoint: Path):
    (checkpoint / "adapter_config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"holds an adapter beside the model; merge it"):
        load(checkpoint)


def test_a_misspelt_configuration_key_is_refused(checkpoint: Path):
    edit_config(checkpoint, hiden_size=8)
    with pytest.raises(CheckpointError, match=r"unknown configuration key 'hiden_size'\. Did you mean 'hidden_size'"):
        load(checkpoint)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"architectures": ["NoSuchModel"]}, "architectures is 'NoSuchModel', expected 'URLSTMModel'"),
        ({"architectures": ["Something"]}, "expected a name that ends in"),
        ({"architectures": None}, "key architectures is missing"),
        ({"model_type": "no-such-type"}, "no-such-type"),
        ({"model_type": None}, "key model_type is missing"),
        ({"gate": "XX"}, "unknown gate 'XX'"),
        ({"hidden_size": "big"}, "hidden_size"),
        ({"hidden_size": 9}, "has shape"),
        ({"auto_map": {"AutoModelForImageClassification": "evil.Model"}, "model_type": "other"}, "other"),
    ],
)
def test_an_impossible_configuration_is_refused_in_one_line(checkpoint: Path, changes: dict, expected: str):
    edit_config(checkpoint, **changes)
    with pytest.raises(CheckpointError) as caught:
        load(checkpoint)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_code_beside_the_weights_is_never_run(checkpoint: Path, tmp_path: Path):
    mark = tmp_path / "ran"
    (checkpoint / "evil.py").write_text(f"open({str(mark)!r}, 'w').close()")
    auto_map = {"AutoConfig": "evil.Config", "AutoModelForImageClassification": "evil.Model"}
    edit_config(checkpoint, auto_map=auto_map)
    load(checkpoint)
    edit_config(checkpoint, model_type="of_its_own")
    with pytest.raises(CheckpointError):
        load(checkpoint)
    assert not mark.exists()


@pytest.mark.parametrize("text", ["", "{", "[]", "\x00", '{"a": NaN}', "[" * 100_000])
def test_a_damaged_configuration_is_refused_in_one_line(checkpoint: Path, text: str):
    (checkpoint / "config.json").write_text(text)
    for use in (load, info):
        with pytest.raises(CheckpointError) as caught:
            use(checkpoint)
        assert "\n" not in str(caught.value)


def test_a_damaged_training_summary_is_refused(checkpoint: Path):
    with_summary(checkpoint, epochs="many")
    with pytest.raises(CheckpointError, match=r"training\.json: key epochs is 'many'"):
        info(checkpoint)
    with_summary(checkpoint, epoch=1)
    with pytest.raises(CheckpointError, match="unknown key epoch"):
        info(checkpoint)


def test_the_processor_is_needed_and_checked(checkpoint: Path):
    assert load_image_processor(checkpoint).length == 784
    file = checkpoint / "preprocessor_config.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, "pixel_odrer": [1]}))
    with pytest.raises(CheckpointError, match="pixel_odrer"):
        load_image_processor(checkpoint)
    file.unlink()
    with pytest.raises(CheckpointError, match=r"has no preprocessor_config\.json"):
        load_image_processor(checkpoint)


def test_a_type_that_is_not_of_floats_is_refused_as_an_argument_not_a_checkpoint(checkpoint: Path):
    for dtype in (torch.int32, "float32"):
        with pytest.raises(UsageError, match=r"dtype is .*expected a type of floats"):
            load(checkpoint, dtype=dtype)


def test_back_end_and_device_are_chosen_or_refused(checkpoint: Path):
    assert load(checkpoint, backend="reference").config.backend == "reference"
    with pytest.raises(BackendError, match="unknown backend 'refrence'"):
        load(checkpoint, backend="refrence")
    with pytest.raises(UsageError, match="device is 'warp'"):
        load(checkpoint, device="warp")


def test_the_header_counts_what_the_model_has(checkpoint: Path):
    header = read_header(checkpoint / WEIGHTS)
    assert parameter_count(header) == sum(p.numel() for p in load(checkpoint).parameters())


@pytest.mark.parametrize("name", [*checkpoints(), *study_checkpoints()])
def test_every_checkpoint_is_whole(name: str):
    found = info(name)
    assert found.training is not None
    assert found.training.selection_split in {"validation", "none"}
    assert sum(p.numel() for p in load(name).parameters()) == found.parameters


def test_what_is_shipped_keeps_to_its_bounds():
    folder = Path(urzoo.__file__).parent
    sizes = {file: file.stat().st_size for file in folder.rglob("*") if file.is_file()}
    weights = [size for file, size in sizes.items() if file.suffix == ".safetensors"]
    assert sum(weights) < 85e6
    assert max(sizes.values()) < 25e6
    # A wheel is a zip file of the package; what a build leaves out makes it smaller only.
    wheel = sum(len(zlib.compress(file.read_bytes(), 1)) for file in sizes if file.suffix != ".pyc")
    assert wheel < 95e6


def test_a_control_character_in_the_configuration_is_one_line(checkpoint: Path):
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps(config | {"gate": "U\x07R", "cell": "lstm", "num_layers": 1}))
    with pytest.raises(CheckpointError, match="key gate") as caught:
        info(checkpoint)
    assert "\n" not in str(caught.value)
    assert "\x07" not in str(caught.value)


def test_threads_may_load_at_once():
    before, shown = PreTrainedModel.tie_weights, logging.get_verbosity()
    with ThreadPoolExecutor(4) as threads:
        models = list(threads.map(load, ["urlstm-1024-wikitext103", "urlstm-128-c-copy"] * 4))
    assert all(model.get_output_embeddings() is not None for model in models)
    assert all(model.lm_head.weight is model.model.embed_tokens.weight for model in models[::2])
    # What transformers exchanges while it loads is as it was.
    assert PreTrainedModel.tie_weights is before
    assert logging.get_verbosity() == shown


def test_a_folder_of_any_name_is_a_checkpoint(checkpoint: Path):
    for name, called in {"two\nlines": "two lines", os.fsdecode(b"n\xff"): "n\ufffd"}.items():
        checkpoint = checkpoint.rename(checkpoint.with_name(name))
        assert info(checkpoint).name == called
    with pytest.raises(CheckpointError, match="is not valid UTF-8"):
        load(checkpoint)


def test_weights_that_may_not_be_read_are_one_line(checkpoint: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(CheckpointError, match=r"cannot read .*model.safetensors: Permission denied"):
        read_header(checkpoint / "model.safetensors")


def test_a_folder_with_the_name_of_a_shipped_checkpoint_is_not_passed_over(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setattr(lookup, "CHECKPOINTS_FOLDER", checkpoint.parent)
    mine = Path(shutil.copytree(checkpoint, tmp_path / "elsewhere" / checkpoint.name))
    monkeypatch.chdir(mine.parent)
    with pytest.raises(
        UsageError, match=rf"{checkpoint.name}' is the name of a checkpoint of urzoo and of a folder here"
    ):
        path(checkpoint.name)
    assert path(f"./{checkpoint.name}").samefile(mine)
    monkeypatch.chdir(checkpoint.parent)  # where the folder is urzoo's own
    assert path(checkpoint.name) == checkpoint
