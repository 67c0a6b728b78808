"""What a language model's recipe reads: its tokenizer, the training streams and the validation text."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from transformers import PreTrainedTokenizerFast

from urzoo.data import load_data_set
from urzoo.schema import content_sha256
from urzoo.training.text.documents import digest_of
from urzoo.training.text.recipe import TextData, TextSource, TokenizerRecipe
from urzoo.training.text.streams import TrainingStreams
from urzoo.training.text.tokenizer import load_or_train_tokenizer
from urzoo.training.text.tokens import Ids, Tokens, tokens_of
from urzoo.zoo.schema import TrainingData

Say = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Corpus:
    """All text of a run.

    Attributes:
        tokenizer: What made the tokens.
        training: The streams to learn from.
        validation: The validation text's tokens, one document after the other.
        validation_words: Its words and line ends.
        digest: That of all splits that were read.
        data: What training.json says of the training data, one entry a source.
    """

    tokenizer: PreTrainedTokenizerFast
    training: TrainingStreams
    validation: Ids
    validation_words: int
    digest: str
    data: list[TrainingData]


def load_corpus(
    data: TextData,
    tokenizer_recipe: TokenizerRecipe,
    *,
    batch_size: int,
    segment_tokens: int,
    seed: int,
    data_root: Path | str | None,
    cache: Path,
    say: Say,
) -> Corpus:
    """Read, verify and tokenize what the sections of a recipe name.

    Args:
        data: What is read.
        tokenizer_recipe: What makes tokens of it.
        batch_size: Rows of a batch.
        segment_tokens: Tokens a row and step.
        seed: With the epoch, it decides the order of the documents.
        data_root: As for `urzoo.data.load_split`.
        cache: A folder for what can be made again.
        say: Says a line.

    Raises:
        UsageError: A data set or split does not exist, or has no text.
        DataError: Data cannot be had, are damaged, empty or too few, or the tokenizer is of another model.
        CheckpointError: The tokenizer's checkpoint has none.
    """
    say("making or finding the tokenizer")
    tokenizer = load_or_train_tokenizer(tokenizer_recipe, data_root=data_root, cache=cache)

    def tokens(source: TextSource) -> Tokens:
        say(f"reading {source.name} ({source.split})")
        return tokens_of(source, tokenizer, data_root=data_root, cache=cache)

    read = [tokens(source.source()) for source in data.train]
    held_out = _held_out(data, [made.documents for made in read])
    sources: list[TextSource] = [*data.train]
    if data.validation is not None:
        made = tokens(data.validation)
        sources.append(data.validation)
        validation, words = made.stream(np.arange(made.documents)), int(made.words.sum())
    else:
        parts = [made.stream(numbers) for made, numbers in zip(read, held_out, strict=True)]
        validation = np.concatenate(parts)
        words = sum(int(made.words[numbers].sum()) for made, numbers in zip(read, held_out, strict=True))
    kept = [np.setdiff1d(np.arange(made.documents), numbers) for made, numbers in zip(read, held_out, strict=True)]
    training = TrainingStreams(
        [(made, numbers, source.times) for made, numbers, source in zip(read, kept, data.train, strict=True)],
        batch_size=batch_size,
        segment_tokens=segment_tokens,
        seed=seed,
    )
    described = [
        TrainingData.of(
            load_data_set(source.name),
            source.split,
            digest_of(source, data_root=data_root),
            train=len(numbers),
            validation=len(aside),
        )
        for source, numbers, aside in zip(data.train, kept, held_out, strict=True)
    ]
    digest = content_sha256([digest_of(source, data_root=data_root) for source in sources])
    return Corpus(tokenizer, training, validation, words, digest, described)


def _held_out(data: TextData, documents: list[int]) -> list[npt.NDArray[np.int64]]:
    """The numbers of the validation documents of each source, in their order; none where another split is used."""
    count = data.validation_documents or 0
    edges = np.cumsum([0, *documents])
    drawn = np.random.RandomState(data.validation_seed).permutation(edges[-1])[:count]
    return [
        np.sort(drawn[(drawn >= begin) & (drawn < end)] - begin)
        for begin, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)
    ]
