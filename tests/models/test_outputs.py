"""Every head returns what the caller or the configuration asks for: an object with names, or a tuple."""

import pytest
import torch

from urzoo import URLSTMConfig, URLSTMModel
from urzoo.errors import UsageError
from urzoo.models import URLSTMForCausalLM, URLSTMForImageClassification, URLSTMForSequenceClassification

TEXTS, LABELS = torch.randint(30, (2, 5)), torch.tensor([0, 2])
HEADS = {
    "bare": (URLSTMModel, {"vocab_size": 30}, {"input_ids": TEXTS}),
    "language model": (URLSTMForCausalLM, {"vocab_size": 30}, {"input_ids": TEXTS, "labels": TEXTS}),
    "texts": (URLSTMForSequenceClassification, {"vocab_size": 30}, {"input_ids": TEXTS, "labels": LABELS}),
    "series": (URLSTMForSequenceClassification, {}, {"inputs_embeds": torch.randn(2, 5, 1), "labels": LABELS}),
    "images": (URLSTMForImageClassification, {}, {"pixel_values": torch.randn(2, 5, 1), "labels": LABELS}),
}


@pytest.mark.parametrize("output_hidden_states", [False, True])
@pytest.mark.parametrize("name", HEADS)
def test_a_tuple_holds_what_the_object_holds(name, output_hidden_states):
    model_class, fields, inputs = HEADS[name]
    model = model_class(URLSTMConfig(hidden_size=8, num_labels=3, **fields)).eval()
    inputs = {**inputs, "output_hidden_states": output_hidden_states}
    named = model(**inputs)
    by_argument = model(**inputs, return_dict=False)
    model.config.return_dict = False
    by_configuration = model(**inputs)
    assert type(model(**inputs, return_dict=True)) is type(named)
    for found in (by_argument, by_configuration):
        assert type(found) is tuple
        assert [type(part) for part in found] == [type(part) for part in named.to_tuple()]
        assert torch.equal(found[0], named[0])
    assert len(named) == len(inputs) - 1 + output_hidden_states + (name in ("bare", "language model"))


@pytest.mark.parametrize("options", [{}, {"num_beams": 2}, {"guidance_scale": 1.5}])
def test_a_model_configured_for_tuples_generates(options):
    model = URLSTMForCausalLM(URLSTMConfig(hidden_size=8, vocab_size=30, initializer_range=1.0)).eval()
    options = {"max_new_tokens": 4, "do_sample": False, **options}
    expected = model.generate(TEXTS, **options)
    model.config.return_dict = False
    assert torch.equal(model.generate(TEXTS, **options), expected)


@pytest.mark.parametrize("compute_logits", [True, False])
def test_a_loss_of_the_users_is_the_loss_with_scores_and_without(compute_logits):
    model = URLSTMForCausalLM(URLSTMConfig(hidden_size=8, vocab_size=30)).eval()
    model.loss_function = lambda logits, **_: logits.shape[-1] * torch.ones(())
    assert model(TEXTS, labels=TEXTS, compute_logits=compute_logits).loss == 30


@pytest.mark.parametrize("compute_logits", [True, False])
def test_labels_are_whole_numbers_of_any_width(compute_logits):
    model = URLSTMForCausalLM(URLSTMConfig(hidden_size=8, vocab_size=30)).eval()
    expected = model(TEXTS, labels=TEXTS).loss
    found = model(TEXTS.int(), labels=TEXTS.int(), compute_logits=compute_logits).loss
    torch.testing.assert_close(found, expected)
    with pytest.raises(UsageError, match=r"labels holds torch\.float32, expected token ids: whole numbers\."):
        model(TEXTS, labels=TEXTS.float(), compute_logits=compute_logits)
