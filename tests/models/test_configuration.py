import json

import pytest
from transformers import AutoConfig

import urzoo
from urzoo import URLSTMConfig
from urzoo.errors import UsageError
from urzoo.recurrence import Gating


def one_line(message: str) -> bool:
    return "\n" not in message


def test_a_misspelt_key_is_refused_with_the_right_one():
    with pytest.raises(
        UsageError, match=r"unknown configuration key 'hiden_size'. Did you mean 'hidden_size'"
    ) as caught:
        URLSTMConfig(hiden_size=3)
    assert one_line(str(caught.value))


def test_a_misspelt_key_in_the_file_is_refused(tmp_path):
    URLSTMConfig(hidden_size=8).save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    content = json.loads(file.read_text())
    content["hiddensize"] = content.pop("hidden_size")
    file.write_text(json.dumps(content))
    with pytest.raises(UsageError, match=r"'hiddensize'.*'hidden_size'"):
        AutoConfig.from_pretrained(tmp_path)


def test_what_transformers_writes_is_read_back(tmp_path):
    config = URLSTMConfig(hidden_size=8, num_labels=3, problem_type="regression", pooling=["mean", "max"])
    config.architectures = ["URLSTMForSequenceClassification"]
    config.save_pretrained(tmp_path)
    again = AutoConfig.from_pretrained(tmp_path)
    assert again.to_dict() == {**config.to_dict(), "_name_or_path": str(tmp_path)}
    assert URLSTMConfig(**config.to_dict()).to_dict() == config.to_dict()


def test_keys_of_transformers_loaders_are_accepted():
    config = URLSTMConfig(torch_dtype="float32", name_or_path="x", attn_implementation="eager", num_hidden_layers=3)
    assert config.num_layers == config.num_hidden_layers == 3


def test_the_back_end_is_a_choice_of_the_process_and_not_saved(tmp_path):
    config = URLSTMConfig(backend="reference")
    config.save_pretrained(tmp_path)
    assert "backend" not in (tmp_path / "config.json").read_text()
    assert "backend" not in config.to_dict()
    assert AutoConfig.from_pretrained(tmp_path).backend is None
    assert AutoConfig.from_pretrained(tmp_path, backend="reference").backend == "reference"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hidden_size": "big"}, "Field 'hidden_size' expected int, got str"),
        ({"hidden_size": 0}, "hidden_size is 0, expected at least 1"),
        ({"gate": "RU"}, "unknown gate 'RU'. Did you mean 'UR'"),
        ({"cell": "lstn"}, "unknown cell 'lstn'. Did you mean 'lstm'"),
        ({"head_dropout": 1.0}, "head_dropout is 1.0, expected a probability"),
        ({"pooling": ["men"]}, "unknown pooling 'men'. Did you mean 'mean'"),
        ({"pooling": []}, "pooling is .*one or more of last, mean, max"),
        ({"head_dtype": "bf16"}, "unknown head_dtype 'bf16'"),
        ({"adaptive_cutoffs": [5, 3], "vocab_size": 10}, "adaptive_cutoffs is .*increasing ids"),
        ({"adaptive_cutoffs": [5]}, "adaptive_cutoffs is .*vocab_size is None"),
        ({"vocab_size": 0}, "vocab_size is 0, expected at least 1"),
        ({"num_labels": 0}, "num_labels is 0, expected at least 1"),
        ({"layer_norm_eps": -1e-5}, "layer_norm_eps is -1e-05, expected at least 0"),
        ({"initializer_range": float("nan")}, "initializer_range is nan, expected at least 0"),
    ],
)
def test_an_impossible_value_is_one_line_that_names_the_field(fields, message):
    with pytest.raises(UsageError, match=message) as caught:
        URLSTMConfig(**fields)
    assert one_line(str(caught.value))


def test_the_gating_follows_the_fields():
    assert URLSTMConfig(gate="--", tie_input_gate=False).gating() == Gating("--", "lstm", tie_input_gate=False)
    assert URLSTMConfig(cell="gru").gating() == Gating("UR", "gru")


def test_the_public_names_resolve():
    for name in dir(urzoo):
        assert getattr(urzoo, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        urzoo.nonsense  # noqa: B018


def test_a_star_imports_the_public_names_and_no_more():
    names: dict[str, object] = {}
    exec("from urzoo import *", names)
    assert names.keys() - {"__builtins__"} == set(urzoo._HOMES)


@pytest.mark.filterwarnings("ignore:.*pad_token_id")
def test_a_padding_token_outside_the_vocabulary_is_refused_by_name():
    with pytest.raises(UsageError, match="pad_token_id is 9, expected an id below vocab_size=5"):
        urzoo.URLSTMModel(URLSTMConfig(vocab_size=5, pad_token_id=9))


def test_a_field_that_never_had_an_effect_is_left_out_of_what_it_came_with():
    config = URLSTMConfig.from_dict({"model_type": "urlstm", "hidden_size": 8, "adaptive_divisor": 4.0})
    assert "adaptive_divisor" not in config.to_dict()
    assert config.hidden_size == 8
