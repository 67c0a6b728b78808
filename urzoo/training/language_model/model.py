"""From a recipe and its tokenizer to the language model."""

from dataclasses import dataclass

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from urzoo.models import URLSTMConfig, URLSTMForCausalLM
from urzoo.training.language_model.recipe import LMRecipe


@dataclass(frozen=True)
class Vocabulary:
    """What a model has of its tokenizer."""

    size: int
    pad_token_id: int | None
    bos_token_id: int | None
    eos_token_id: int | None

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerFast) -> "Vocabulary":
        """The vocabulary of a tokenizer; a padding token that means something else besides is none to the model."""
        padding, end = tokenizer.pad_token_id, tokenizer.eos_token_id
        return cls(len(tokenizer), None if padding == end else padding, tokenizer.bos_token_id, end)


def build_model(recipe: LMRecipe, vocabulary: Vocabulary) -> PreTrainedModel:
    """The model that a recipe describes, with drawn weights.

    Raises:
        UsageError: The cut-offs lie outside the vocabulary.
    """
    config = URLSTMConfig(
        **recipe.model.model_dump(),
        vocab_size=vocabulary.size,
        pad_token_id=vocabulary.pad_token_id,
        bos_token_id=vocabulary.bos_token_id,
        eos_token_id=vocabulary.eos_token_id,
    )
    torch.manual_seed(recipe.run.seed)
    return URLSTMForCausalLM(config)
