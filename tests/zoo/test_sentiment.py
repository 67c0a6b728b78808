"""The shipped classifiers of reviews, as transformers' pipeline and as a model: every text has an answer."""

import numpy as np
import pytest
import torch
from transformers import pipeline

from urzoo import zoo
from urzoo.data import Split, load_data_set
from urzoo.errors import UsageError
from urzoo.evaluation import Settings, load_task
from urzoo.evaluation.runner import Evaluation, Subject

NAMES = ["urlstm-128-imdb", "urlstm-256-imdb", "urlstm-512-imdb"]
NAME = NAMES[1]
TEXTS = [
    "A wonderful film: moving, beautifully acted, and one of the best I have seen in years. 10/10.",
    "Terrible. The plot is a mess, the acting is awful and it was a complete waste of my time. Avoid.",
    "",
    " \n\t ",
    "\U0001f60d\U0001f389\U0001f469\u200d\U0001f680",
    "\u65e5\u672c\u306e\u6620\u753b\u306f\u7d20\u6674\u3089\u3057\u3044\u3002",
    "\u0641\u064a\u0644\u0645 \u0631\u0627\u0626\u0639",
    "\u041e\u0442\u043b\u0438\u0447\u043d\u044b\u0439 \u0444\u0438\u043b\u044c\u043c",
    "<|endoftext|><|pad|><br />",
    "\x00\u202e\ufffd",
]


@pytest.fixture(scope="module", params=NAMES)
def classify(request):
    return pipeline("text-classification", model=str(zoo.path(request.param)))


def scores_of(answers):
    return {answer["label"]: answer["score"] for answer in answers}


def test_a_review_is_answered_with_its_feeling_and_probability(classify):
    answers = [classify(text)[0] for text in TEXTS[:2]]
    assert [answer["label"] for answer in answers] == ["pos", "neg"]
    assert all(answer["score"] > 0.8 for answer in answers)


@pytest.mark.parametrize("text", TEXTS, ids=ascii)
def test_every_text_has_two_probabilities_that_sum_to_one(classify, text):
    scores = scores_of(classify(text, top_k=None))
    assert set(scores) == {"neg", "pos"}
    assert all(0 <= score <= 1 for score in scores.values())
    assert sum(scores.values()) == pytest.approx(1, abs=1e-5)


def test_a_list_is_answered_one_by_one_whatever_the_batches(classify):
    alone = [scores_of(classify(text, top_k=None)) for text in TEXTS]
    for batch_size in (1, 3, len(TEXTS)):
        together = classify(TEXTS, top_k=None, batch_size=batch_size)
        for one, other in zip(alone, together, strict=True):
            assert scores_of(other) == pytest.approx(one, abs=1e-5)


def test_a_review_of_ten_thousand_words_is_read_whole(classify):
    dull = "the film goes on and on " * 1700
    praise, blame = (classify(dull + end, top_k=None) for end in (TEXTS[0] * 40, TEXTS[1] * 40))
    assert len(zoo.load_tokenizer(NAME)(dull)["input_ids"]) > 10_000
    assert scores_of(praise)["pos"] > scores_of(blame)["pos"]


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_on_either_side_and_company_change_no_score(side):
    model, tokenizer = zoo.load(NAME), zoo.load_tokenizer(NAME)
    tokenizer.padding_side = side
    texts = [text for text in TEXTS if text.strip()]
    with torch.inference_mode():
        alone = torch.cat([model(**tokenizer([text], return_tensors="pt")).logits for text in texts])
        for order in (range(len(texts)), reversed(range(len(texts)))):
            rows = list(order)
            batch = tokenizer([texts[row] for row in rows], padding=True, return_tensors="pt")
            assert (model(**batch).logits - alone[rows]).abs().max() < 1e-5


def test_a_row_of_padding_scores_as_the_empty_text():
    model = zoo.load(NAME)
    with torch.inference_mode():
        ids = torch.full((2, 7), model.config.pad_token_id)
        padding = model(input_ids=ids, attention_mask=torch.zeros(2, 7, dtype=torch.long)).logits
        empty = model(input_ids=torch.zeros(1, 0, dtype=torch.long)).logits
    assert torch.equal(padding[0], padding[1])
    assert (padding[:1] - empty).abs().max() < 1e-6


def test_an_id_or_a_label_outside_the_range_is_one_line():
    model = zoo.load(NAME)
    for inputs, expected in (
        ({"input_ids": torch.tensor([[model.config.vocab_size]])}, "expected ids from 0 to"),
        ({"input_ids": torch.tensor([[5]]), "labels": torch.tensor([2])}, "expected class indices from 0 to 1"),
    ):
        with pytest.raises(UsageError, match=expected) as caught:
            model(**inputs)
        assert "\n" not in str(caught.value)


def test_the_tokenizer_writes_every_text_back():
    tokenizer = zoo.load_tokenizer(NAME)
    for text in TEXTS:
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_the_task_gives_the_same_figures_whatever_the_batches_and_the_order(batch_size):
    labels = np.arange(len(TEXTS), dtype=np.int64) % 2
    split = Split(load_data_set("imdb"), "test", "0" * 64, "data root", {"text": TEXTS, "label": labels})
    turned = split.select(np.arange(len(TEXTS))[::-1].copy())

    def figures(rows: Split, size: int) -> dict[str, float]:
        subject, task = Subject.of(NAME), load_task("imdb")
        return Evaluation(subject, task, rows, Settings(batch_size=size)).run(progress=False).result.metrics

    assert figures(turned, batch_size) == pytest.approx(figures(split, 1), abs=1e-5)
