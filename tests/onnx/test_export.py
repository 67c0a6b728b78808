"""Each head and gating as an ONNX file: onnxruntime gives the model's results, at any batch and length, in pieces."""

import numpy as np
import onnxruntime
import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.nn.utils import prune

import urzoo
from urzoo import URGRU, URLSTM, URLSTMConfig
from urzoo.errors import UsageError
from urzoo.models import (
    URLSTMForCausalLM,
    URLSTMForImageClassification,
    URLSTMForSequenceClassification,
)
from urzoo.onnx import export_onnx, to_onnx
from urzoo.recurrence.gates import CELLS, GATINGS

POOLINGS = [["last"], ["max", "mean", "last"]]


@pytest.fixture(autouse=True)
def fixed_seed():
    torch.manual_seed(0)


def session_of(model, tmp_path) -> onnxruntime.InferenceSession:
    file = export_onnx(model, tmp_path / "model.onnx")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])


def language_model(**fields) -> URLSTMForCausalLM:
    settings = {"vocab_size": 40, "hidden_size": 16, "initializer_range": 1.0, **fields}
    return URLSTMForCausalLM(URLSTMConfig(**settings)).eval()


def rows(*, batch: int, time: int, vocabulary: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and a mask: rows padded on the left, on the right, and not at all."""
    mask = torch.ones(batch, time, dtype=torch.int64)
    mask[0, : time // 2] = 0
    mask[1 % batch, time - time // 3 :] = 0
    return torch.randint(vocabulary, (batch, time)), mask


def zeros(session: onnxruntime.InferenceSession, batch: int = 1) -> dict[str, np.ndarray]:
    states = [given for given in session.get_inputs() if given.name.startswith(("hidden.", "cell."))]
    return {given.name: np.zeros((batch, given.shape[1]), np.float32) for given in states}


def close(got: np.ndarray, expected: torch.Tensor) -> None:
    torch.testing.assert_close(torch.from_numpy(got), expected.detach(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"num_layers": 3, "layer_norm": True, "residual": True},
        {"embedding_size": 8, "cell": "gru"},
        {"adaptive_cutoffs": [10, 30], "embedding_size": 12},
        {"head_dtype": "bfloat16"},
        {"tie_word_embeddings": False, "gate": "OM", "tie_input_gate": False},
    ],
)
def test_a_language_model_gives_the_same_scores_with_any_batch_length_and_padding(fields, tmp_path):
    model = language_model(**fields)
    session = session_of(model, tmp_path)
    model.config.head_dtype = "float32"
    for batch, time in ((3, 11), (1, 1), (2, 40)):
        ids, mask = rows(batch=batch, time=time)
        (got,) = session.run(["logits"], {"input_ids": ids.numpy(), "attention_mask": mask.numpy(), **zeros(session)})
        close(got, model(ids, mask).logits)


def test_a_text_read_in_pieces_has_the_scores_of_the_whole(tmp_path):
    model = language_model(num_layers=2)
    session = session_of(model, tmp_path)
    ids, mask = rows(batch=3, time=12)
    expected = model(ids, mask).logits
    state = zeros(session, batch=3)
    names = [output.name for output in session.get_outputs()]
    for start, end in ((0, 5), (5, 6), (6, 12)):
        given = {"input_ids": ids[:, start:end].numpy(), "attention_mask": mask[:, start:end].numpy(), **state}
        results = dict(zip(names, session.run(names, given), strict=True))
        close(results["logits"], expected[:, start:end])
        state = {name: results[f"next_{name}"] for name in state}


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("vocab_size", [40, None])
def test_a_classifier_of_texts_or_series_gives_the_same_scores(vocab_size, pooling, bidirectional, tmp_path):
    config = URLSTMConfig(
        vocab_size=vocab_size, input_size=3, hidden_size=16, num_layers=2, num_labels=3, pooling=pooling,
        bidirectional=bidirectional, initializer_range=1.0,
    )  # fmt: skip
    model = URLSTMForSequenceClassification(config).eval()
    session = session_of(model, tmp_path)
    for batch, time in ((3, 11), (1, 2)):
        ids, mask = rows(batch=batch, time=time)
        mask[-1] = 0  # a row of nothing but padding
        name, inputs = ("input_ids", ids) if vocab_size else ("inputs_embeds", torch.randn(batch, time, 3))
        (got,) = session.run(["logits"], {name: inputs.numpy(), "attention_mask": mask.numpy()})
        close(got, model(**{name: inputs}, attention_mask=mask).logits)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_classifier_of_images_gives_the_same_scores(pooling, bidirectional, tmp_path):
    config = URLSTMConfig(input_size=3, hidden_size=16, num_labels=4, pooling=pooling, bidirectional=bidirectional)
    model = URLSTMForImageClassification(config).eval()
    session = session_of(model, tmp_path)
    for batch, time in ((3, 20), (1, 1)):
        pixels = torch.randn(batch, time, 3)
        close(session.run(["logits"], {"pixel_values": pixels.numpy()})[0], model(pixels).logits)


def test_a_series_can_be_classified_in_pieces(tmp_path):
    model = URLSTMForSequenceClassification(URLSTMConfig(input_size=2, hidden_size=8, num_labels=3)).eval()
    session = session_of(model, tmp_path)
    series, mask = torch.randn(2, 10, 2), np.ones((2, 4), np.int64)
    first = {"inputs_embeds": series[:, :4].numpy(), "attention_mask": mask}
    hidden, cell = session.run(["next_hidden.0", "next_cell.0"], first)
    rest = {"inputs_embeds": series[:, 4:8].numpy(), "attention_mask": mask, "hidden.0": hidden, "cell.0": cell}
    close(session.run(["logits"], rest)[0], model(inputs_embeds=series[:, :8]).logits)


@pytest.mark.parametrize("pooling", [["mean"], ["last", "max"]], ids=str)
def test_a_classifier_that_pools_over_all_steps_offers_no_state_to_read_pieces_with(pooling, tmp_path):
    """What the earlier pieces add to the mean and the maximum would be missing."""
    model = URLSTMForSequenceClassification(URLSTMConfig(input_size=2, hidden_size=8, num_labels=3, pooling=pooling))
    session = session_of(model.eval(), tmp_path)
    assert {one.name for one in session.get_inputs()} == {"inputs_embeds", "attention_mask"}
    assert [one.name for one in session.get_outputs()] == ["logits"]


# The GRU takes no master gates.
@pytest.mark.parametrize(("cell", "gate"), [(c, g) for c in CELLS for g in GATINGS if not (c == "gru" and "M" in g)])
def test_every_gating_gives_the_same_states(cell, gate, tmp_path):
    for untied, refine_offset in ((False, True), (True, False)):
        options = {"tie_input_gate": not untied} if cell == "lstm" else {}
        kind = URLSTM if cell == "lstm" else URGRU
        layer = kind(
            3, 6, 2, batch_first=True, bidirectional=True, gate=gate, refine_offset=refine_offset,
            max_time=20 if gate[0] == "C" else None, **options,
        )  # fmt: skip
        session = session_of(layer, tmp_path)
        inputs = torch.randn(2, 7, 3)
        close(session.run(["output"], {"input": inputs.numpy(), **zeros(session)})[0], layer(inputs)[0])


def test_a_layer_keeps_its_layout(tmp_path):
    layer = URLSTM(3, 6, bias=False)
    session = session_of(layer, tmp_path)
    inputs = torch.randn(7, 2, 3)
    outputs, (hidden, cell) = layer(inputs)
    got = session.run(["output", "next_hidden.0", "next_cell.0"], {"input": inputs.numpy(), **zeros(session)})
    for value, expected in zip(got, (outputs, hidden[0], cell[0]), strict=True):
        close(value, expected)


def test_pruned_weights_are_written_as_the_next_call_would_make_them(tmp_path):
    layer, inputs = URLSTM(3, 6), torch.randn(7, 2, 3)
    prune.l1_unstructured(layer, "weight_hh_l0", 0.5)
    layer(inputs)[0].sum().backward()
    torch.optim.SGD(layer.parameters(), lr=1.0).step()
    session = session_of(layer, tmp_path)
    close(session.run(["output"], {"input": inputs.numpy(), **zeros(session)})[0], layer(inputs)[0])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_a_model_in_another_dtype_is_written_in_float32_and_left_as_it_is(dtype, tmp_path):
    model = language_model().to(dtype).train()
    session = session_of(model, tmp_path)
    assert model.training
    assert model.dtype == dtype
    ids, mask = rows(batch=2, time=5)
    given = {"input_ids": ids.numpy(), "attention_mask": mask.numpy(), **zeros(session)}
    close(session.run(["logits"], given)[0], model.float().eval()(ids, mask).logits)


def test_a_caller_in_autocast_gets_the_same_file(tmp_path):
    model = language_model()
    plain = export_onnx(model, tmp_path / "plain.onnx").read_bytes()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert export_onnx(model, tmp_path / "autocast.onnx").read_bytes() == plain


def test_the_file_declares_what_it_takes_and_gives(tmp_path):
    proto = to_onnx(language_model())
    sizes = {
        value.name: [entry.dim_param or entry.dim_value for entry in value.type.tensor_type.shape.dim]
        for value in (*proto.graph.input, *proto.graph.output)
    }
    assert sizes == {
        "input_ids": ["batch", "time"],
        "attention_mask": ["batch", "time"],
        "hidden.0": ["state_batch", 16],
        "cell.0": ["state_batch", 16],
        "next_hidden.0": ["batch", 16],
        "next_cell.0": ["batch", 16],
        "logits": ["batch", "time", 40],
    }
    assert {node.domain for node in proto.graph.node} == {""}
    assert [entry.version for entry in proto.opset_import] == [18]


def test_tied_weights_stand_in_the_file_once():
    def size(*, tied: bool) -> int:
        return to_onnx(language_model(vocab_size=500, tie_word_embeddings=tied)).ByteSize()

    assert size(tied=False) - size(tied=True) > 0.9 * 500 * 16 * 4


def test_a_model_configured_for_tuples_is_exported(tmp_path):
    model = language_model(return_dict=False)
    ids, mask = rows(batch=2, time=5)
    session = session_of(model, tmp_path)
    given = {"input_ids": ids.numpy(), "attention_mask": mask.numpy(), **zeros(session, 2)}
    close(session.run(["logits"], given)[0], model(ids, attention_mask=mask)[0])


def test_a_shipped_checkpoint_gives_the_same_scores(tmp_path):
    model = urzoo.load("urlstm-128-pmnist")
    pixels = torch.randn(2, 784, 1)
    session = session_of(model, tmp_path)
    close(session.run(["logits"], {"pixel_values": pixels.numpy()})[0], model(pixels).logits)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft asks for it
def test_what_the_weights_alone_do_not_say_is_refused_and_nothing_is_written(tmp_path):
    file = tmp_path / "model.onnx"
    adapted = get_peft_model(
        language_model(tie_word_embeddings=False), LoraConfig(target_modules=["lm_head"], init_lora_weights=False)
    )
    with pytest.raises(UsageError, match=r"model is a PeftModel, expected one of URLSTMForCausalLM"):
        export_onnx(adapted, file)
    with pytest.raises(UsageError, match=r"lm_head is a Linear.* peft's merge_and_unload"):
        export_onnx(adapted.base_model.model, file)
    hooked = language_model()
    hooked.model.register_forward_hook(
        lambda module, args, outputs: setattr(outputs, "last_hidden_state", outputs.last_hidden_state * 2)
    )
    with pytest.raises(UsageError, match=r"logits of the ONNX graph differs from the model's .* was not written"):
        export_onnx(hooked, file)
    with pytest.raises(UsageError, match="model is a LSTM, expected one of"):
        export_onnx(torch.nn.LSTM(2, 3), file)
    assert not file.exists()
    ids, mask = rows(batch=2, time=5)
    merged = adapted.merge_and_unload()
    session = session_of(merged, tmp_path)
    given = {"input_ids": ids.numpy(), "attention_mask": mask.numpy(), **zeros(session)}
    close(session.run(["logits"], given)[0], merged(ids, mask).logits)


def test_a_gating_with_a_function_unknown_here_is_refused(monkeypatch):
    monkeypatch.setattr("urzoo.recurrence.gates.cumax", lambda preactivations: torch.erf(preactivations))
    with pytest.raises(UsageError, match=r"torch.erf of a gating has no form in ONNX"):
        to_onnx(URLSTM(2, 3, gate="O-"))


def test_without_the_packages_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setattr("urzoo.onnx.export.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"the package onnx is not installed; type: pip install 'urzoo\[onnx\]'"):
        to_onnx(URLSTM(2, 3))
