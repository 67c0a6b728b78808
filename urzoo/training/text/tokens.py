"""Tokens of a text source on disk: made once, then mapped into memory.

    <cache>/tokens/<digest>/tokens.npy      the ids of all documents, one after the other, in the smallest unsigned type
    <cache>/tokens/<digest>/documents.npy   where each document begins, and the end of the last; int64
    <cache>/tokens/<digest>/words.npy       words and line ends of each document; int64

The digest is that of the split, the source's section of the recipe, and the tokenizer. A folder is there as a whole or
not at all. Where the tokenizer does not end lines itself, each document begins with the end-of-text token, so that a
model learns what a beginning is and when to stop.
"""

from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from transformers import PreTrainedTokenizerFast

from urzoo.training.cache import made_once
from urzoo.training.text.documents import Document, digest_of, order_of, read_documents
from urzoo.training.text.recipe import TextSource
from urzoo.training.text.tokenizer import encode_lines, special_id, tokenizer_sha256

Ids = npt.NDArray[Any]
_FORMAT = 1


@dataclass(frozen=True, eq=False)
class Tokens:
    """The tokens of documents.

    Attributes:
        ids: All of them, `(tokens,)`, mapped from disk.
        starts: Where each document begins, and the end of the last, `(documents + 1,)`.
        words: Words and line ends of each document, as WikiText counts them, `(documents,)`.
    """

    ids: Ids
    starts: npt.NDArray[np.int64]
    words: npt.NDArray[np.int64]

    @property
    def documents(self) -> int:
        """The number of documents."""
        return len(self.starts) - 1

    def stream(self, order: npt.NDArray[np.int64]) -> Ids:
        """The tokens of the documents with the given numbers, in that order, one after the other."""
        if not len(order):
            return self.ids[:0]
        return np.concatenate([self.ids[self.starts[number] : self.starts[number + 1]] for number in order])


def tokens_of(
    source: TextSource, tokenizer: PreTrainedTokenizerFast, *, data_root: Path | str | None = None, cache: Path
) -> Tokens:
    """The tokens of a source: those in the cache, or newly made ones, which then stay there.

    Args:
        source: The section of the recipe.
        tokenizer: What makes ids of text.
        data_root: As for `urzoo.data.load_split`; the data are read only where the tokens are not there yet.
        cache: A folder for what can be made again.

    Raises:
        UsageError: The data set or the split does not exist, or has no text.
        DataError: The data cannot be had, are damaged or empty; or the folder in the cache is damaged.
    """
    # How often it is read is no part of it.
    read = source.model_dump(mode="json", exclude={"times"})
    key = {"format": _FORMAT, "source": read, "data": digest_of(source, data_root=data_root)}
    key |= {"tokenizer": tokenizer_sha256(tokenizer)}
    if (order := order_of(source)) is not None:
        key |= {"order": order}
    return made_once(
        cache / "tokens",
        key,
        make=lambda folder: _write(folder, read_documents(source, data_root=data_root), tokenizer),
        read=lambda folder: _read(folder, len(tokenizer)),
    )


def ends_lines(tokenizer: PreTrainedTokenizerFast) -> bool:
    """Whether the tokenizer's end token is a line's end, as in word-level models, rather than a document's."""
    ids: list[int] = tokenizer("\n", add_special_tokens=False)["input_ids"]
    return ids == [special_id(tokenizer, "eos_token")]


def _write(folder: Path, documents: list[Document], tokenizer: PreTrainedTokenizerFast) -> None:
    before = [] if ends_lines(tokenizer) else [tokenizer.eos_token_id]
    encoded = encode_lines(tokenizer, [line for document in documents for line in document])
    ids, starts = array("I"), np.zeros(len(documents) + 1, dtype=np.int64)
    words = np.zeros(len(documents), dtype=np.int64)
    for number, document in enumerate(documents):
        ids.extend(before)
        for line in document:
            ids.extend(next(encoded))
            words[number] += len(line.split()) + line.endswith("\n")
        starts[number + 1] = len(ids)
    narrow = np.uint16 if max(ids) < 2**16 else np.uint32
    np.save(folder / "tokens.npy", np.frombuffer(ids, dtype=np.uint32).astype(narrow), allow_pickle=False)
    np.save(folder / "documents.npy", starts, allow_pickle=False)
    np.save(folder / "words.npy", words, allow_pickle=False)


def _read(folder: Path, vocabulary: int) -> Tokens:
    ids = np.load(folder / "tokens.npy", mmap_mode="r", allow_pickle=False)
    if (largest := int(ids.max())) >= vocabulary:
        raise ValueError(f"it holds the token id {largest}, expected ids below {vocabulary}")
    starts, words = (np.load(folder / f"{name}.npy", allow_pickle=False) for name in ("documents", "words"))
    return Tokens(ids, starts, words)
