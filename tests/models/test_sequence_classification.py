import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn
from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerFast, pipeline

from urzoo import URLSTMConfig, URLSTMForCausalLM, URLSTMForSequenceClassification
from urzoo.errors import ShapeError, UsageError

VOCABULARY = 40
POOLINGS = [["last"], ["mean"], ["max"], ["last", "mean", "max"]]


ONE_NUMBER = {"id2label": {0: "value"}, "label2id": {"value": 0}}


def build(**fields) -> URLSTMForSequenceClassification:
    config = URLSTMConfig(
        **{
            "vocab_size": VOCABULARY,
            "hidden_size": 12,
            "pad_token_id": 0,
            "initializer_range": 1.0,
            "id2label": {0: "neg", 1: "pos"},
            "label2id": {"neg": 0, "pos": 1},
            **fields,
        }
    )
    return URLSTMForSequenceClassification(config).eval()


def padded_batch(rows: list[torch.Tensor], sides: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    longest = max(len(row) for row in rows) + 2
    ids, masks = [], []
    for row, side in zip(rows, sides, strict=True):
        missing = longest - len(row)
        before = {"left": missing, "right": 0, "both": missing // 2}[side]
        # Padding is filled with a real token: the mask alone says what counts.
        ids.append(nn.functional.pad(row, (before, missing - before), value=7))
        masks.append(nn.functional.pad(torch.ones_like(row), (before, missing - before)))
    return torch.stack(ids), torch.stack(masks)


@pytest.mark.parametrize("pooling", POOLINGS, ids=str)
@pytest.mark.parametrize(
    "fields", [{}, {"bidirectional": True}, {"num_layers": 2, "residual": True, "layer_norm": True}]
)
def test_padding_and_company_do_not_change_a_rows_scores(pooling, fields):
    model = build(pooling=pooling, **fields)
    rows = [torch.randint(1, VOCABULARY, (length,)) for length in (1, 5, 9, 3)]
    alone = torch.cat([model(row[None]).logits for row in rows])
    for sides in (["left"] * 4, ["right"] * 4, ["left", "right", "both", "right"]):
        ids, mask = padded_batch(rows, sides)
        torch.testing.assert_close(model(ids, attention_mask=mask).logits, alone, atol=1e-5, rtol=0)
        order = torch.tensor([2, 0, 3, 1])
        reordered = model(ids[order], attention_mask=mask[order]).logits
        torch.testing.assert_close(reordered, alone[order], atol=1e-5, rtol=0)


@pytest.mark.parametrize("pooling", POOLINGS, ids=str)
def test_a_row_of_padding_has_the_scores_of_nothing(pooling):
    model = build(pooling=pooling, bidirectional=True)
    ids = torch.randint(1, VOCABULARY, (2, 5))
    mask = torch.tensor([[1, 1, 1, 0, 0], [0, 0, 0, 0, 0]])
    scores = model(ids, attention_mask=mask).logits
    torch.testing.assert_close(scores[1], model.head(torch.zeros(1, 24 * len(pooling)))[0])
    torch.testing.assert_close(scores[:1], model(ids[:1, :3]).logits, atol=1e-5, rtol=0)


def test_an_empty_sequence_has_the_scores_of_nothing():
    model = build()
    expected = model.head(torch.zeros(2, 12))
    torch.testing.assert_close(model(torch.zeros(2, 0)).logits, expected)
    torch.testing.assert_close(model(torch.zeros(2, 0), attention_mask=torch.zeros(2, 0)).logits, expected)
    torch.testing.assert_close(model(inputs_embeds=torch.zeros(2, 0, 12)).logits, expected)


def test_poolings_are_what_they_are_called():
    model = build(pooling=["last", "mean", "max"], bidirectional=True)
    ids = torch.randint(1, VOCABULARY, (3, 6))
    hidden = model.model(ids).last_hidden_state
    last = torch.cat([hidden[:, -1, :12], hidden[:, 0, 12:]], dim=-1)
    pooled = torch.cat([last, hidden.mean(1), hidden.amax(1)], dim=-1)
    torch.testing.assert_close(model(ids).logits, model.head(pooled))


def test_a_series_of_floats_is_classified_without_a_vocabulary(tmp_path):
    model = build(vocab_size=None, pad_token_id=None, input_size=3, num_labels=2)
    series = torch.randn(2, 7, 3)
    scores = model(inputs_embeds=series).logits
    padded, mask = nn.functional.pad(series, (0, 0, 0, 4), value=9.0), torch.tensor([[1] * 7 + [0] * 4] * 2)
    torch.testing.assert_close(model(inputs_embeds=padded, attention_mask=mask).logits, scores, atol=1e-5, rtol=0)
    model.save_pretrained(tmp_path)
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert torch.equal(again(inputs_embeds=series).logits, scores)


def test_embedded_tokens_score_as_their_ids():
    model = build()
    ids = torch.randint(1, VOCABULARY, (2, 5))
    assert torch.equal(model(inputs_embeds=model.get_input_embeddings()(ids)).logits, model(ids).logits)


@pytest.mark.parametrize(
    ("fields", "labels", "loss"),
    [
        ({}, torch.tensor([0, 1]), nn.functional.cross_entropy),
        (
            {"problem_type": "multi_label_classification"},
            torch.tensor([[0.0, 1.0], [1.0, 1.0]]),
            nn.functional.binary_cross_entropy_with_logits,
        ),
        ({"problem_type": "regression"}, torch.randn(2, 2), nn.functional.mse_loss),
    ],
    ids=["one label", "several labels", "regression"],
)
def test_the_loss_is_that_of_the_problem(fields, labels, loss):
    model = build(**fields)
    ids = torch.randint(1, VOCABULARY, (2, 5))
    torch.testing.assert_close(model(ids, labels=labels).loss, loss(model(ids).logits, labels))


@pytest.mark.parametrize(
    ("fields", "labels"),
    [
        ({}, [0, 1]),
        ({"problem_type": "multi_label_classification"}, [[0, 1], [1, 1]]),
        (ONE_NUMBER, [3, -2]),
        (ONE_NUMBER, [[3], [-2]]),
    ],
)
@pytest.mark.parametrize("dtype", [torch.int32, torch.int16, torch.float64, torch.bool])
@pytest.mark.parametrize("model_dtype", [torch.bfloat16, torch.float64], ids=str)
def test_labels_of_any_dtype_have_the_same_loss_which_is_not_in_16_bits(fields, labels, dtype, model_dtype):
    model, ids = build(**fields).to(model_dtype), torch.randint(1, VOCABULARY, (2, 5))
    given = torch.tensor(labels, dtype=dtype)
    if not fields and (dtype.is_floating_point or dtype is torch.bool):
        with pytest.raises(ShapeError, match=r"labels has the shape \(2,\) and holds .*, expected the shape \(2, 2\)"):
            model(ids, labels=given)
        return
    expected = model(ids).logits.double()
    if not fields:
        wanted = nn.functional.cross_entropy(expected, given.long())
    elif fields is ONE_NUMBER:
        wanted = nn.functional.mse_loss(expected.flatten(), given.flatten().double())
    else:
        wanted = nn.functional.binary_cross_entropy_with_logits(expected, given.double())
    loss = model(ids, labels=given).loss
    assert loss.dtype == torch.promote_types(model_dtype, torch.float32)
    torch.testing.assert_close(loss.double(), wanted, atol=1e-6, rtol=1e-6)
    loss.backward()


@pytest.mark.parametrize(
    ("fields", "labels", "message"),
    [
        ({}, torch.tensor([1]), r"the shape \(1,\) and holds torch.int64, expected the shape \(2,\)"),
        (ONE_NUMBER, torch.zeros(1), r"\(1,\) and .* expected the shape \(2,\) for problem_type 'regression'"),
        (ONE_NUMBER, torch.zeros(2, 2), r"\(2, 2\) .* expected the shape \(2,\)"),
        ({"problem_type": "regression"}, torch.zeros(2), r"\(2,\) .* expected the shape \(2, 2\)"),
        ({"problem_type": "single_label_classification"}, torch.zeros(2), "holds torch.float32, expected class ind"),
    ],
)
def test_labels_that_do_not_fit_are_one_line(fields, labels, message):
    with pytest.raises((ShapeError, UsageError), match=message):
        build(**fields)(torch.randint(1, VOCABULARY, (2, 5)), labels=labels)


def test_a_loss_of_the_callers_takes_what_labels_it_will():
    model, ids, weights = build(), torch.randint(1, VOCABULARY, (2, 5)), torch.tensor([[0.2, 0.8], [1.0, 0.0]])
    model.loss_function = lambda labels, logits, *_, **__: nn.functional.cross_entropy(logits, labels)
    wanted = nn.functional.cross_entropy(model(ids).logits, weights)
    for further in ({}, {"num_items_in_batch": 8}):  # which it would take into account itself
        torch.testing.assert_close(model(ids, labels=weights, **further).loss, wanted)


def test_a_mask_of_attention_scores_is_one_line():
    ids, mask = torch.randint(1, VOCABULARY, (2, 5)), torch.zeros(2, 5)
    mask[0, 3:] = torch.finfo(torch.float32).min
    with pytest.raises(UsageError, match=r"attention_mask holds -3.40282e\+38, expected 1 where a step is real"):
        build()(ids, attention_mask=mask)


def test_an_unknown_label_is_one_line():
    with pytest.raises(UsageError, match="labels holds 2, expected class indices from 0 to 1"):
        build()(torch.randint(1, VOCABULARY, (2, 5)), labels=torch.tensor([0, 2]))


@pytest.mark.parametrize("fields", [{}, {"bidirectional": True}, {"cell": "gru", "num_layers": 2, "layer_norm": True}])
def test_gradient_reaches_every_parameter_through_padding(fields):
    model = build(pooling=["last", "mean", "max"], **fields).train()
    rows = [torch.randint(1, VOCABULARY, (length,)) for length in (4, 9)]
    ids, mask = padded_batch(rows, ["left", "right"])
    output = model(ids, attention_mask=mask, labels=torch.tensor([0, 1]))
    output.loss.backward()
    for name, parameter in model.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_the_pipeline_answers_with_probabilities(tmp_path):
    words = ["<pad>", "<unk>", *(f"w{index}" for index in range(2, VOCABULARY))]
    backend = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        unk_token="<unk>",
        model_input_names=["input_ids", "attention_mask"],
    )
    model = build(pooling=["mean", "max"], bidirectional=True)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    classify = pipeline("text-classification", model=str(tmp_path))
    texts = ["w5 w6 w7", "w9", "", "\N{GRINNING FACE} привет 你好", " ".join(["w8", "w11"] * 5000)]
    alone = [classify(text, top_k=None) for text in texts]
    for answer in alone:
        assert {entry["label"] for entry in answer} == {"neg", "pos"}
        assert sum(entry["score"] for entry in answer) == pytest.approx(1.0)
    together = classify(texts, batch_size=4, top_k=None)
    for one, other in zip(alone, together, strict=True):
        assert [entry["label"] for entry in one] == [entry["label"] for entry in other]
        assert [entry["score"] for entry in one] == pytest.approx([entry["score"] for entry in other], abs=1e-5)


def test_a_classifier_takes_over_the_layers_of_a_language_model(tmp_path):
    config = URLSTMConfig(vocab_size=VOCABULARY, hidden_size=12, pad_token_id=0)
    teacher = URLSTMForCausalLM(config)
    teacher.save_pretrained(tmp_path)
    pupil = URLSTMForSequenceClassification.from_pretrained(tmp_path, bidirectional=True, pooling=["mean", "max"])
    taken = pupil.model.state_dict()
    for name, value in teacher.model.state_dict().items():
        assert torch.equal(value, taken[name]), name
    backward = taken["layers.0.recurrence.weight_hh_l0_reverse"]
    for block in backward.chunk(4):
        torch.testing.assert_close(block @ block.T, torch.eye(12), atol=1e-5, rtol=0)
    assert pupil.config.pooling == ["mean", "max"]
    assert pupil(torch.randint(1, VOCABULARY, (2, 5))).logits.shape == (2, 2)


@pytest.mark.parametrize(
    "options", [{}, {"residual": True}, {"layer_norm": True}, {"residual": True, "layer_norm": True}]
)
def test_whatever_stands_in_the_padding_the_gradients_are_those_of_zeros(options):
    torch.manual_seed(0)
    config = URLSTMConfig(input_size=6, hidden_size=6, num_layers=2, **options)
    model = URLSTMForSequenceClassification(config).eval()
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    gradients = []
    for filled in (0.0, torch.nan, torch.inf):
        inputs = torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(0)).masked_fill(
            mask[..., None] == 0, filled
        )
        model.zero_grad()
        model(inputs_embeds=inputs, attention_mask=mask, labels=torch.tensor([0, 1])).loss.backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None])
    for one, *others in zip(*gradients, strict=True):
        assert torch.isfinite(one).all()
        assert all(torch.equal(one, other) for other in others)


@pytest.mark.filterwarnings(
    "ignore::torch.jit.TracerWarning",
    "ignore:.*torch.jit.*:DeprecationWarning",
    "ignore:.*is_gradient_checkpointing:FutureWarning",
)
@pytest.mark.parametrize("gradients", [True, False])
@pytest.mark.parametrize("pooling", [["last"], ["mean"], ["max"], ["last", "mean", "max"]], ids=str)
def test_a_traced_model_sees_padding_that_its_example_had_not(pooling, gradients):
    torch.manual_seed(0)
    config = URLSTMConfig(vocab_size=50, hidden_size=8, num_labels=3, pooling=pooling, initializer_range=1.0)
    model, ids = URLSTMForSequenceClassification(config).eval(), torch.randint(50, (2, 9))
    padded = torch.ones_like(ids)
    padded[0, 5:] = padded[1, :4] = 0
    with torch.set_grad_enabled(gradients):
        traced = torch.jit.trace(model, (ids, torch.ones_like(ids)), strict=False)
        for mask in (padded, torch.ones_like(ids)):
            torch.testing.assert_close(traced(ids, mask)["logits"], model(ids, attention_mask=mask).logits)
