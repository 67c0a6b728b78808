"""urzoo's classes under the tests that transformers writes for its own models; run by `scripts/conformance`.

It is copied into the unpacked source of transformers, beside the test files it imports. What is written
here is only what each of transformers' own models has to say to those tests: small configurations, inputs,
labels. One test is left out, which asks an image model for a token embedding.
"""

import unittest
from typing import ClassVar

import torch

from urzoo import (
    URLSTMCache,
    URLSTMConfig,
    URLSTMForCausalLM,
    URLSTMForImageClassification,
    URLSTMForSequenceClassification,
    URLSTMModel,
)

from .generation.test_utils import GenerationTesterMixin
from .test_configuration_common import ConfigTester
from .test_modeling_common import ModelTesterMixin, floats_tensor, ids_tensor, random_attention_mask

BATCH, TIME, CHANNELS, HIDDEN, LAYERS, VOCABULARY = 3, 7, 3, 16, 2, 37


class TextTester:
    """Small text models and their inputs."""

    batch_size, seq_length, hidden_size, num_hidden_layers, vocab_size = BATCH, TIME, HIDDEN, LAYERS, VOCABULARY
    is_training = True
    fields: ClassVar[dict[str, object]] = {}

    def __init__(self, parent: unittest.TestCase) -> None:
        self.parent = parent

    def get_config(self) -> URLSTMConfig:
        """A configuration of every size the tests ask for."""
        return URLSTMConfig(
            vocab_size=VOCABULARY,
            hidden_size=HIDDEN,
            num_layers=LAYERS,
            head_hidden_size=8,
            pad_token_id=1,
            bos_token_id=2,
            eos_token_id=3,
            num_labels=3,
            **self.fields,
        )

    def prepare_config_and_inputs_for_common(self) -> tuple[URLSTMConfig, dict[str, torch.Tensor]]:
        """A configuration and a batch with padding."""
        inputs = {
            "input_ids": ids_tensor([BATCH, TIME], VOCABULARY).clamp(min=4),
            "attention_mask": random_attention_mask([BATCH, TIME]),
        }
        return self.get_config(), inputs


class GatedTextTester(TextTester):
    """The same with every option of the layers."""

    hidden_size = 12  # the width of the first hidden state
    fields: ClassVar[dict[str, object]] = {
        "layer_norm": True,
        "residual": True,
        "embedding_size": 12,
        "pooling": ["last", "mean", "max"],
    }


class GruTextTester(TextTester):
    """The same with the other cell."""

    fields: ClassVar[dict[str, object]] = {"cell": "gru"}


class ImageTester:
    """Small models of images and their inputs."""

    batch_size, seq_length, num_hidden_layers = BATCH, TIME, LAYERS
    hidden_size = CHANNELS  # the width of the first hidden state
    is_training = True

    def __init__(self, parent: unittest.TestCase) -> None:
        self.parent = parent

    def get_config(self) -> URLSTMConfig:
        """A configuration of every size the tests ask for."""
        return URLSTMConfig(
            input_size=CHANNELS, hidden_size=HIDDEN, num_layers=LAYERS, head_hidden_size=8, num_labels=3
        )

    def prepare_config_and_inputs_for_common(self) -> tuple[URLSTMConfig, dict[str, torch.Tensor]]:
        """A configuration and a batch of pixel sequences."""
        return self.get_config(), {"pixel_values": floats_tensor([BATCH, TIME, CHANNELS])}


class Conformance(ModelTesterMixin):
    """What the groups below share."""

    has_attentions = False
    inputs_and_sizes: type = TextTester

    def setUp(self) -> None:  # noqa: D102
        self.model_tester = self.inputs_and_sizes(self)


class Generation(GenerationTesterMixin):
    """transformers' tests of generation, told of a state that does not grow and of padding without attention."""

    def _check_past_key_values_for_generate(self, batch_size: int, past_key_values: URLSTMCache, **_: object) -> None:
        parts = 1 if self.model_tester.get_config().cell == "gru" else 2
        assert [len(state) for state in past_key_values.states] == [parts] * LAYERS
        assert {tuple(part.shape) for state in past_key_values.states for part in state} == {(batch_size, HIDDEN)}

    def test_left_padding_compatibility(self) -> None:
        """Skipped for models without attention, which the padding would reach; it does not reach ours."""
        if not hasattr(GenerationTesterMixin, "test_left_padding_compatibility"):
            self.skipTest("The tests of generation are not in transformers' source archive.")
        self.has_attentions = True
        super().test_left_padding_compatibility()


class TextTest(Conformance, Generation, unittest.TestCase):
    """The text models as configured by default."""

    all_model_classes = (URLSTMModel, URLSTMForCausalLM, URLSTMForSequenceClassification)

    def test_config(self) -> None:
        """transformers' tests of the configuration."""
        properties = ["hidden_size", "num_hidden_layers", "vocab_size"]
        ConfigTester(
            self, config_class=URLSTMConfig, common_properties=properties, hidden_size=HIDDEN, vocab_size=VOCABULARY
        ).run_common_tests()


class GatedTextTest(Conformance, Generation, unittest.TestCase):
    """The text models with residual connections, layer norm, projection, all poolings."""

    all_model_classes = (URLSTMModel, URLSTMForCausalLM, URLSTMForSequenceClassification)
    inputs_and_sizes = GatedTextTester

    def _check_hidden_states_for_generate(
        self,
        batch_size: int,
        hidden_states: tuple[tuple[torch.Tensor, ...], ...],
        prompt_length: int,
        output_length: int,
        config: URLSTMConfig,
        use_cache: bool = False,  # noqa: FBT001, FBT002
    ) -> None:
        # The first of them are the embedded tokens, which are narrower here; transformers expects one width for all.
        assert len(hidden_states) == output_length - prompt_length
        for step, states in enumerate(hidden_states):
            time = 1 if use_cache and step else prompt_length + step
            widths = [config.token_size, *[config.hidden_size] * LAYERS]
            assert [tuple(each.shape) for each in states] == [(batch_size, time, width) for width in widths]


class GruTextTest(Conformance, Generation, unittest.TestCase):
    """The text models with the GRU."""

    all_model_classes = (URLSTMModel, URLSTMForCausalLM, URLSTMForSequenceClassification)
    inputs_and_sizes = GruTextTester


class ImageTest(Conformance, unittest.TestCase):
    """The image classifier."""

    all_model_classes = (URLSTMForImageClassification,)
    test_resize_embeddings = False
    inputs_and_sizes = ImageTester

    @unittest.skip("An image model has no token embedding.")
    def test_model_get_set_embeddings(self) -> None:
        """Left out."""

    def _prepare_config_and_inputs_for_retain_grad_hidden_states_attentions(self) -> tuple[URLSTMConfig, dict]:
        # The first hidden state is the image itself, which has a gradient only where one is asked for.
        config, inputs = self.model_tester.prepare_config_and_inputs_for_common()
        inputs["pixel_values"].requires_grad_()
        return config, inputs
