"""Weights in several files, as `save_pretrained` of transformers writes them with `max_shard_size`."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from urzoo import URLSTMConfig, URLSTMForCausalLM, URLSTMForSequenceClassification
from urzoo.errors import CheckpointError
from urzoo.hub.export import export
from urzoo.zoo import info, load

INDEX = "model.safetensors.index.json"


@pytest.fixture
def model() -> URLSTMForCausalLM:
    return URLSTMForCausalLM(URLSTMConfig(vocab_size=50, hidden_size=16, num_layers=3)).eval()


@pytest.fixture
def sharded(model, tmp_path: Path) -> Path:
    folder = tmp_path / "sharded"
    model.save_pretrained(folder, max_shard_size="8KB")
    assert len(list(folder.glob("*.safetensors"))) > 2
    return folder


def test_shards_are_told_and_loaded_as_one_file(model, sharded: Path, tmp_path: Path):
    model.save_pretrained(tmp_path / "whole")
    found, whole = info(sharded), info(tmp_path / "whole")
    assert found.parameters == whole.parameters
    assert found.weights_bytes > sum(value.nbytes for value in model.parameters())
    assert found.weights_sha256 != whole.weights_sha256
    ids = torch.arange(9)[None]
    with torch.no_grad():
        assert torch.equal(load(sharded)(ids).logits, model(ids).logits)


def test_shards_are_exported(tmp_path: Path):
    sharded = tmp_path / "classifier"
    URLSTMForSequenceClassification(URLSTMConfig(input_size=2, hidden_size=16)).save_pretrained(
        sharded, max_shard_size="8KB"
    )
    files = export(sharded, tmp_path / "exported").files
    assert INDEX in files
    assert info(tmp_path / "exported").weights_sha256 == info(sharded).weights_sha256


def test_every_shard_decides_the_digest(sharded: Path):
    before = info(sharded).weights_sha256
    last = sorted(sharded.glob("*.safetensors"))[-1]
    content = bytearray(last.read_bytes())
    content[-1] ^= 1
    last.write_bytes(content)
    assert info(sharded).weights_sha256 != before


def test_a_shard_that_is_missing_is_named(sharded: Path):
    last = sorted(sharded.glob("*.safetensors"))[-1]
    last.unlink()
    for call in (info, load):
        with pytest.raises(CheckpointError, match=f"has no {last.name}"):
            call(sharded)


@pytest.mark.parametrize("name", ["../model-00001-of-00002.safetensors", "/etc/passwd", "weights.bin", 3])
def test_an_index_that_leads_elsewhere_is_refused(sharded: Path, name):
    index = json.loads((sharded / INDEX).read_text())
    index["weight_map"]["lm_head.bias"] = name
    (sharded / INDEX).write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="expected files such as model-00001-of-00002"):
        info(sharded)


@pytest.mark.parametrize("content", ["[]", "{}", '{"weight_map": []}', "{"])
def test_a_malformed_index_is_one_line(sharded: Path, content: str):
    (sharded / INDEX).write_text(content)
    with pytest.raises(CheckpointError, match=r"index\.json"):
        info(sharded)


def test_an_index_that_the_shards_contradict_is_refused(sharded: Path):
    index = json.loads((sharded / INDEX).read_text())
    shards = sorted(set(index["weight_map"].values()))
    name = next(name for name, shard in index["weight_map"].items() if shard == shards[0])
    index["weight_map"][name] = shards[1]
    (sharded / INDEX).write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=f"do not agree about '{name}'"):
        load(sharded)


def test_weights_saved_in_files_of_another_kind_replace_the_earlier_ones(model, tmp_path: Path):
    """transformers leaves one file beside shards, or shards beside one file, and loads the one file."""
    later = URLSTMForCausalLM(model.config).eval()
    for first, second in (("1GB", "8KB"), ("8KB", "1GB")):
        model.save_pretrained(tmp_path / "c", max_shard_size=first)
        later.save_pretrained(tmp_path / "c", max_shard_size=second)
        for found in (load(tmp_path / "c"), URLSTMForCausalLM.from_pretrained(tmp_path / "c")):
            assert all(torch.equal(value, later.state_dict()[name]) for name, value in found.state_dict().items())


def test_the_index_tells_the_bytes_that_are_stored(tmp_path: Path):
    URLSTMForSequenceClassification(URLSTMConfig(input_size=2, hidden_size=16)).save_pretrained(
        tmp_path / "float32", max_shard_size="8KB"
    )
    export(tmp_path / "float32", tmp_path / "bfloat16", dtype="bfloat16")
    for folder in (tmp_path / "float32", tmp_path / "bfloat16"):
        stored = [tensor for file in folder.glob("*.safetensors") for tensor in load_file(file).values()]
        told = json.loads((folder / INDEX).read_text())["metadata"]
        assert told["total_size"] == sum(tensor.nbytes for tensor in stored)
