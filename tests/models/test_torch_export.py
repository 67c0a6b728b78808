"""`torch.export` of every head, and transformers' exporter over it: one program for any batch and length, with the
model's own results. The exporter's own tests (ExportTesterMixin) are in no package of transformers."""

import copy

import pytest
import torch
from torch.export import Dim, export
from transformers import exporters

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


def test_an_exported_language_model_goes_on_from_any_state():
    torch.manual_seed(0)
    model = URLSTMForCausalLM(URLSTMConfig(vocab_size=30, **SMALL)).eval()
    ids = torch.randint(30, (2, 8))
    with torch.no_grad():
        whole = model(ids)
        cache = model(ids[:, :4]).cache
        program = export(model, (), {"input_ids": ids[:, 4:6], "cache": copy.deepcopy(cache)}).module()
        for end in (6, 8):  # the second time from a state after more steps than at the export
            outputs = program(input_ids=ids[:, end - 2 : end], cache=cache)
            cache = outputs.cache
            assert cache.get_seq_length() == end
            torch.testing.assert_close(outputs.logits, whole.logits[:, end - 2 : end])
    torch.testing.assert_close(cache.states[0], whole.cache.states[0])


# The exporter's own use of torch.
ignore_deprecated = pytest.mark.filterwarnings("ignore:`treespec.children_specs` is deprecated:FutureWarning")


@ignore_deprecated
@pytest.mark.parametrize("name", HEADS)
def test_transformers_exporter_takes_a_head_and_gives_it_back(name, tmp_path):
    torch.manual_seed(0)
    model_class, fields, inputs = HEADS[name]
    model = model_class(URLSTMConfig(**SMALL, **fields)).eval()
    exported = exporters.DynamoExporter().export(model, inputs(3, 7), config=exporters.DynamoConfig(dynamic=True))
    exported.save_pretrained(tmp_path)
    # A program of torch is pickled; this one was written here.
    for program in (exported, exporters.ExportedModel.from_pretrained(tmp_path, trust_remote_code=True)):
        for batch, time in ((3, 7), (2, 20)):
            given = inputs(batch, time)
            found, expected = program(**given), model(**given)
            torch.testing.assert_close(found.logits, expected.logits)
            if name == "language model":
                torch.testing.assert_close(found.cache.states, expected.cache.states)


@ignore_deprecated
def test_transformers_exporter_splits_generation_into_reading_and_writing():
    torch.manual_seed(0)
    model = URLSTMForCausalLM(URLSTMConfig(vocab_size=30, num_layers=2, **SMALL)).eval()
    given = texts(2, 6)
    exported = exporters.DynamoExporter().export_for_generation(
        model, given, config=exporters.DynamoConfig(dynamic=True)
    )
    assert set(exported.components) == {"prefill", "decode"}
    read, write = (exported.runners[name] for name in ("prefill", "decode"))
    outputs, written = read(**given), []
    for _ in range(4):
        written.append(outputs.logits[:, -1:].argmax(-1))
        outputs = write(input_ids=written[-1], cache=outputs.cache)
    expected = model.generate(**given, max_new_tokens=4, do_sample=False)
    assert torch.equal(torch.cat(written, dim=1), expected[:, 6:])
    assert outputs.cache.get_seq_length() == 10
