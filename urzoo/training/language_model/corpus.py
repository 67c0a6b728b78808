"""What a language model's recipe reads: its tokenizer, the training streams and the validation text."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from transformers import PreTrainedTokenizerFast

from urzoo.data import load_data_set
from urzoo.schema import content_sha256
from urzoo.training.language_model.model import Vocabulary
from urzoo.training.language_model.recipe import LMRecipe
from urzoo.training.language_model.streams import TrainingStreams
from urzoo.training.language_model.tokens import Ids, Tokens, tokens_of
from urzoo.training.text.documents import digest_of
from urzoo.training.text.recipe import TextSource
from urzoo.training.text.tokenizer import load_or_train_tokenizer
from urzoo.zoo.schema import TrainingData

Say = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Corpus:
    """All text of a run.

    Attributes:
        tokenizer: What made the tokens.
        vocabulary: What the model has of it.
        training: The streams to learn from.
        validation: The validation text's tokens, one document after the other.
        validation_words: Its words and line ends.
        digest: That of all splits that were read.
        data: What training.json says of the training data, one entry a source.
    """

    tokenizer: PreTrainedTokenizerFast
    vocabulary: Vocabulary
    training: TrainingStreams
    validation: Ids
    validation_words: int
    digest: str
    data: list[TrainingData]


def load_corpus(recipe: LMRecipe, *, data_root: Path | str | None, cache: Path, say: Say) -> Corpus:
    """Read, verify and tokenize what a recipe names.

    Raises:
        UsageError: A data set or split does not exist, or has no text.
        DataError: Data cannot be had, are damaged, empty or too few, or the tokenizer is of another model.
        CheckpointError: The tokenizer's checkpoint has none.
    """
    say(f"making or finding the tokenizer of {recipe.name}")
    tokenizer = load_or_train_tokenizer(recipe.tokenizer, data_root=data_root, cache=cache)
    vocabulary = Vocabulary.of(tokenizer)

    def tokens(source: TextSource) -> Tokens:
        say(f"reading {source.name} ({source.split})")
        return tokens_of(source, tokenizer, data_root=data_root, cache=cache)

    read = [tokens(source.source()) for source in recipe.data.train]
    held_out = _held_out(recipe, [made.documents for made in read])
    sources: list[TextSource] = [*recipe.data.train]
    if recipe.data.validation is not None:
        made = tokens(recipe.data.validation)
        sources.append(recipe.data.validation)
        validation, words = made.stream(np.arange(made.documents)), int(made.words.sum())
    else:
        parts = [made.stream(numbers) for made, numbers in zip(read, held_out, strict=True)]
        validation = np.concatenate(parts)
        words = sum(int(made.words[numbers].sum()) for made, numbers in zip(read, held_out, strict=True))
    kept = [np.setdiff1d(np.arange(made.documents), numbers) for made, numbers in zip(read, held_out, strict=True)]
    training = TrainingStreams(
        [(made, numbers, source.times) for made, numbers, source in zip(read, kept, recipe.data.train, strict=True)],
        batch_size=recipe.run.batch_size,
        segment_tokens=recipe.run.segment_tokens,
        seed=recipe.run.seed,
    )
    data = [
        _described(source, digest_of(source, data_root=data_root), learnt=len(numbers), held_out=len(aside))
        for source, numbers, aside in zip(recipe.data.train, kept, held_out, strict=True)
    ]
    digest = content_sha256([digest_of(source, data_root=data_root) for source in sources])
    return Corpus(tokenizer, vocabulary, training, validation, words, digest, data)


def _held_out(recipe: LMRecipe, documents: list[int]) -> list[npt.NDArray[np.int64]]:
    """The numbers of the validation documents of each source, in their order; none where another split is used."""
    count = recipe.data.validation_documents or 0
    edges = np.cumsum([0, *documents])
    drawn = np.random.RandomState(recipe.data.validation_seed).permutation(edges[-1])[:count]
    return [
        np.sort(drawn[(drawn >= begin) & (drawn < end)] - begin)
        for begin, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)
    ]


def _described(source: TextSource, digest: str, *, learnt: int, held_out: int) -> TrainingData:
    """Where documents are articles, their number is given in place of that of the rows."""
    data_set = load_data_set(source.name)
    return TrainingData(
        name=data_set.name,
        config=data_set.config,
        split=source.split,
        digest=digest,
        rows_train=learnt,
        rows_validation=held_out,
    )
