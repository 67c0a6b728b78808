"""Tokenizers by recipe: learnt with the `tokenizers` library, kept on disk, saved as transformers loads them.

A tokenizer is a function of its section of the recipe and of the digests of its texts, so that it is learnt once and
found again under the digest of the two. Special tokens are never read from text: a text that holds `<|endoftext|>` is
text (`split_special_tokens`), and is written back exactly.
"""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from urzoo.errors import DataError, RecipeError
from urzoo.schema import content_sha256
from urzoo.training.cache import made_once
from urzoo.training.text.documents import digest_of, read_documents
from urzoo.training.text.recipe import (
    ByteLevelTokenizerRecipe,
    CheckpointTokenizerRecipe,
    TokenizerRecipe,
    WordTokenizerRecipe,
)
from urzoo.training.text.surface import UNKNOWN
from urzoo.zoo import load_tokenizer

PADDING, END_OF_TEXT = "<|pad|>", "<|endoftext|>"
LINE_END = "<eos>"
# Of Rust's regular expressions as the tokenizers library reads them; each covers every text without a gap.
_GPT2 = r"'(?:s|t|re|ve|m|ll|d)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_PATTERNS = {"gpt2": _GPT2, "wikitext": rf" ?'(?:s|t|re|ve|m|ll|d)(?!\p{{L}})| ?<unk>|{_GPT2}"}
_LINES_AT_A_TIME = 4096


def load_or_train_tokenizer(
    recipe: TokenizerRecipe, *, data_root: Path | str | None = None, cache: Path
) -> PreTrainedTokenizerFast:
    """The tokenizer that a recipe describes: the one in the cache, or a newly learnt one, which then stays there.

    Args:
        recipe: The section of the recipe.
        data_root: As for `urzoo.data.load_split`.
        cache: A folder for what can be made again; the tokenizer goes into a subfolder.

    Raises:
        UsageError: A data set, split or checkpoint is not one.
        DataError: The texts cannot be had, or are empty.
        CheckpointError: The checkpoint that is named has no tokenizer.
    """
    tokenizer: PreTrainedTokenizerFast
    if isinstance(recipe, CheckpointTokenizerRecipe):
        tokenizer = load_tokenizer(recipe.checkpoint)
        return tokenizer

    def make(folder: Path) -> None:
        read = [read_documents(source, data_root=data_root) for source in recipe.texts]
        lines = [line for documents in read for document in documents for line in document]
        train_tokenizer(recipe, lines).save_pretrained(folder)

    digests = [digest_of(source, data_root=data_root) for source in recipe.texts]
    # Loaded in either case: what was learnt just now is then what a resumed run finds.
    tokenizer = made_once(
        cache / "tokenizers",
        {"recipe": recipe.model_dump(mode="json"), "data": digests},
        make=make,
        read=lambda folder: PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True),
    )
    return tokenizer


def train_tokenizer(
    recipe: ByteLevelTokenizerRecipe | WordTokenizerRecipe, lines: list[str]
) -> PreTrainedTokenizerFast:
    """A tokenizer learnt from lines of text; the same lines give the same tokenizer.

    Raises:
        DataError: There is no text in the lines.
    """
    if not any(line.strip() for line in lines):
        raise DataError("there is no text to make a tokenizer of: every line is empty.")
    return _byte_level(recipe, lines) if isinstance(recipe, ByteLevelTokenizerRecipe) else _words(recipe, lines)


def special_id(tokenizer: PreTrainedTokenizerFast, key: Literal["pad_token", "eos_token"]) -> int:
    """The id of a special token.

    Raises:
        RecipeError: The tokenizer has no such token, as that of another library's checkpoint may have none.
    """
    number: int | None = getattr(tokenizer, f"{key}_id")
    if number is None:
        raise RecipeError(f"tokenizer.checkpoint names a tokenizer without {key}; name one that has it.")
    return number


def tokenizer_sha256(tokenizer: PreTrainedTokenizerFast) -> str:
    """A digest of all that decides which ids a text gets."""
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    # How the last call padded is not the tokenizer's nature.
    content |= {"padding": None, "truncation": None, "split_special_tokens": bool(tokenizer.split_special_tokens)}
    return content_sha256(content)


def encode_lines(tokenizer: PreTrainedTokenizerFast, lines: list[str]) -> Iterator[list[int]]:
    """The ids of each line, without any added ones; the library does it on all its threads."""
    backend = tokenizer.backend_tokenizer
    backend.encode_special_tokens = bool(tokenizer.split_special_tokens)
    backend.no_truncation()
    backend.no_padding()
    for start in range(0, len(lines), _LINES_AT_A_TIME):
        for encoding in backend.encode_batch_fast(lines[start : start + _LINES_AT_A_TIME], add_special_tokens=False):
            yield encoding.ids


def _byte_level(recipe: ByteLevelTokenizerRecipe, lines: list[str]) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PATTERNS[recipe.pattern]), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=recipe.vocab_size,
        min_frequency=recipe.minimum_frequency,
        special_tokens=[PADDING, END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(lines, trainer, length=len(lines))
    return _wrapped(tokenizer, bos_token=END_OF_TEXT, eos_token=END_OF_TEXT, pad_token=PADDING)


def _words(recipe: WordTokenizerRecipe, lines: list[str]) -> PreTrainedTokenizerFast:
    counts: Counter[str] = Counter()
    for line in lines:
        counts.update(line.split())
    counts[LINE_END] += sum(line.count("\n") for line in lines)
    counts.setdefault(UNKNOWN, 0)
    ordered = sorted(counts, key=lambda word: (-counts[word], word))
    kept = ordered[: recipe.vocab_size]
    for needed in (LINE_END, UNKNOWN):
        if needed not in kept:
            kept[-1 if kept[-1] not in (LINE_END, UNKNOWN) else -2] = needed
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(kept)}, UNKNOWN))
    tokenizer.normalizer = normalizers.Replace("\n", f" {LINE_END} ")
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    # Text that holds "<unk>" or "<eos>" means just these, as in WikiText's own files.
    return _wrapped(tokenizer, bos_token=LINE_END, eos_token=LINE_END, pad_token=LINE_END, unk_token=UNKNOWN)


def _wrapped(tokenizer: Tokenizer, **special: str) -> PreTrainedTokenizerFast:
    options: dict[str, Any] = {
        "split_special_tokens": True,
        "clean_up_tokenization_spaces": False,
        "padding_side": "left",
        "model_input_names": ["input_ids", "attention_mask"],
    }
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **options, **special)  # type: ignore[no-untyped-call]
