"""What a language model's recipe reads: its tokenizer, the training documents and the validation text."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from transformers import PreTrainedTokenizerFast

from urzoo.data import load_data_set
from urzoo.errors import DataError
from urzoo.schema import content_sha256
from urzoo.training.job import Sources
from urzoo.training.text.documents import digest_of, order_of
from urzoo.training.text.recipe import TextData, TextSource, TokenizerRecipe
from urzoo.training.text.streams import WeightedTokens
from urzoo.training.text.tokenizer import load_or_train_tokenizer
from urzoo.training.text.tokens import Ids, Tokens, tokens_of
from urzoo.zoo.schema import TrainingData


@dataclass(frozen=True, eq=False)
class Corpus:
    """All text of a run.

    Attributes:
        tokenizer: What made the tokens.
        training: The documents to learn from, one part a source.
        validation: The validation text's tokens, one document after the other.
        validation_words: Its words and line ends.
        digest: That of all splits that were read.
        data: What training.json says of the training data, one entry a source.
    """

    tokenizer: PreTrainedTokenizerFast
    training: list[WeightedTokens]
    validation: Ids
    validation_words: int
    digest: str
    data: list[TrainingData]


def load_corpus(data: TextData, tokenizer_recipe: TokenizerRecipe, sources: Sources) -> Corpus:
    """Read, verify and tokenize what the sections of a recipe name.

    Raises:
        UsageError: A data set or split does not exist, or has no text.
        DataError: Data cannot be had, are damaged or empty, or too few to hold some out.
        CheckpointError: The tokenizer's checkpoint has none.
    """
    sources.say("making or finding the tokenizer")
    tokenizer = load_or_train_tokenizer(tokenizer_recipe, data_root=sources.data_root, cache=sources.cache)

    def tokens(source: TextSource) -> Tokens:
        sources.say(f"reading {source.name} ({source.split})")
        return tokens_of(source, tokenizer, data_root=sources.data_root, cache=sources.cache)

    read = [tokens(source) for source in data.train]
    aside = _held_out(data, [made.documents for made in read])
    kept = [np.setdiff1d(np.arange(made.documents), numbers) for made, numbers in zip(read, aside, strict=True)]
    for source, numbers in zip(data.train, kept, strict=True):
        if not len(numbers):
            raise DataError(
                f"data.validation_documents is {data.validation_documents}, which leaves no document of {source.name} "
                f"({source.split}) to learn from; lower it."
            )
    validation = list(zip(read, aside, strict=True))
    if data.validation is not None:
        made = tokens(data.validation)
        validation = [(made, np.arange(made.documents))]
    held_out = np.concatenate([made.stream(numbers) for made, numbers in validation])
    if len(held_out) < 2:
        raise DataError("the validation text has one token, expected at least 2; raise data.validation_documents.")
    named = [*data.train, *([] if data.validation is None else [data.validation])]
    orders = [order_of(source) for source in named]
    sources.orders.extend(order or "" for order in orders)
    digests = [digest_of(source, data_root=sources.data_root) for source in named]
    parts = list(zip(data.train, digests, orders, strict=False))  # without that of the validation
    return Corpus(
        tokenizer,
        training=list(zip(read, kept, [source.times for source in data.train], strict=True)),
        validation=held_out,
        validation_words=sum(int(made.words[numbers].sum()) for made, numbers in validation),
        digest=content_sha256(digests),
        data=[
            TrainingData.of(
                load_data_set(source.name), source.split, digest, train=len(learnt), validation=len(drawn), order=order
            )
            for (source, digest, order), learnt, drawn in zip(parts, kept, aside, strict=True)
        ],
    )


def _held_out(data: TextData, documents: list[int]) -> list[npt.NDArray[np.int64]]:
    """The numbers of the validation documents of each source, in their order; none where another split is used."""
    count = data.validation_documents or 0
    edges = np.cumsum([0, *documents])
    drawn = np.random.RandomState(data.validation_seed).permutation(edges[-1])[:count]
    return [
        np.sort(drawn[(drawn >= begin) & (drawn < end)] - begin)
        for begin, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)
    ]
