"""`torch.export` of every head: one program for any batch and length, with the model's own results."""

import copy

import pytest
import torch
from torch.export import Dim, export

from urzoo import URLSTMConfig
from urzoo.models import URLSTMForCausalLM, URLSTMForImageClassification, URLSTMForSequenceClassification

SMALL = {"hidden_size": 8, "num_labels": 3, "initializer_range": 1.0}


def padded(batch: int, time: int) -> torch.Tensor:
    mask = torch.ones(batch, time, dtype=torch.int64)
    mask[0, : time // 2] = 0
    return mask


def texts(batch: int, time: int) -> dict[str, torch.Tensor]:
    return {"input_ids": torch.randint(30, (batch, time)), "attention_mask": padded(batch, time)}


def series(batch: int, time: int) -> dict[str, torch.Tensor]:
    return {"inputs_embeds": torch.randn(batch, time, 3), "attention_mask": padded(batch, time)}


def images(batch: int, time: int) -> dict[str, torch.Tensor]:
    return {"pixel_values": torch.randn(batch, time, 3)}


HEADS = {
    "language model": (URLSTMForCausalLM, {"vocab_size": 30, "num_layers": 2}, texts),
    "adaptive softmax": (URLSTMForCausalLM, {"vocab_size": 30, "adaptive_cutoffs": [9], "cell": "gru"}, texts),
    "texts": (URLSTMForSequenceClassification, {"vocab_size": 30, "pooling": ["last", "max"]}, texts),
    "series": (URLSTMForSequenceClassification, {"input_size": 3, "bidirectional": True}, series),
    "images": (URLSTMForImageClassification, {"input_size": 3, "pooling": ["mean", "max"]}, images),
}


@pytest.mark.parametrize("name", HEADS)
def test_a_head_can_be_exported_for_any_batch_and_length(name):
    torch.manual_seed(0)
    model_class, fields, inputs = HEADS[name]
    model = model_class(URLSTMConfig(**SMALL, **fields)).eval()
    sizes = {0: Dim("batch", min=2, max=64), 1: Dim("time", min=2, max=1024)}
    example = inputs(3, 7)
    program = export(model, (), example, dynamic_shapes=dict.fromkeys(example, sizes))
    for batch, time in ((3, 7), (2, 20)):
        given = inputs(batch, time)
        torch.testing.assert_close(program.module()(**given).logits, model(**given).logits)


def test_an_exported_language_model_goes_on_from_a_state():
    torch.manual_seed(0)
    model = URLSTMForCausalLM(URLSTMConfig(vocab_size=30, **SMALL)).eval()
    ids = torch.randint(30, (2, 6))
    with torch.no_grad():
        whole = model(ids).logits
        cache = model(ids[:, :4]).cache_params
        program = export(model, (), {"input_ids": ids[:, 4:], "cache_params": copy.deepcopy(cache)})
        outputs = program.module()(input_ids=ids[:, 4:], cache_params=cache)
    torch.testing.assert_close(outputs.logits, whole[:, 4:])
    torch.testing.assert_close(outputs.cache_params.states[0], model(ids).cache_params.states[0])
