"""A local checkpoint folder, read once and found complete before any of it is sent or renamed into place."""

import errno
import hashlib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from urzoo.errors import CheckpointError
from urzoo.hub import contents
from urzoo.hub.eval_results import check_eval_results
from urzoo.schema import content_sha256, parse_yaml, read_json, read_yaml
from urzoo.zoo.loading import load, load_image_processor, load_tokenizer
from urzoo.zoo.lookup import read_config, training_summary

MODEL_TYPES = ("urlstm",)
# An access token of the Hub: what must never be in a file that is published.
_TOKEN = re.compile(rb"hf_[A-Za-z0-9]{30,}")

# Their models read numbers that stand for nothing, which no tokenizer makes of a text.
_TASKS_OF_SYMBOLS = frozenset({"copy"})


@dataclass(frozen=True)
class LocalFile:
    """A file as it will be sent: the bytes that were checked, whatever happens to the file meanwhile."""

    path: str
    content: bytes
    sha256: str

    @property
    def size_bytes(self) -> int:
        """Its length."""
        return len(self.content)

    @property
    def git_oid(self) -> str:
        """The name git gives to this content, which the Hub lists for files outside LFS."""
        return git_oid(self.content)


@dataclass(frozen=True)
class Checkpoint:
    """What of a folder is sent, and the names of what is not."""

    files: tuple[LocalFile, ...]
    left_out: tuple[str, ...]
    has_code: bool

    @property
    def digest(self) -> str:
        """A sha256 over all names and contents: two folders with the same digest are the same push."""
        lines = "".join(f"{file.sha256}  {file.path}\n" for file in self.files)
        return hashlib.sha256(lines.encode()).hexdigest()


def git_oid(content: bytes) -> str:
    """The sha1 by which git and the Hub name a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def read_checkpoint(folder: Path) -> Checkpoint:
    """The files of a checkpoint folder that a push sends, all of them checked.

    Python files are part of it only where the configuration points to them, as `export` writes it.

    Raises:
        CheckpointError: The folder is not a complete checkpoint, or holds what must not be published.
    """
    check_checkpoint(folder)
    _check_card(folder / contents.CARD)
    check_eval_results(folder)
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())
    code = _code_of(folder)
    for name in sorted(code):
        if name not in names:
            raise CheckpointError(
                f"{folder / contents.CONFIG} points to {name}, which the folder lacks; push with code."
            )
    sent = [name for name in names if contents.is_checkpoint_file(name) or (code and contents.is_code(name))]
    files = tuple(_read(folder, name) for name in sent)
    return Checkpoint(files, tuple(name for name in names if name not in sent), bool(code))


def check_checkpoint(folder: Path, *, any_model: bool = False) -> None:
    """Refuse a folder whose model and processor or tokenizer would not load, or would not be what they say.

    Args:
        folder: The checkpoint.
        any_model: Accept models that are not urzoo's.

    Raises:
        CheckpointError: A file is missing, damaged, or does not fit the others; the message names it.
    """
    config = read_config(folder)
    if not any_model:
        check_model_type(config, folder / contents.CONFIG)
    load(folder)
    summary = training_summary(folder)
    if config["architectures"][0].endswith("ForImageClassification"):
        processor = load_image_processor(folder)
        taken = config.get("input_size", 1)  # transformers leaves out of config.json what has its default value
        if config["model_type"] in MODEL_TYPES and processor.channels != taken:
            raise CheckpointError(
                f"{folder / contents.CONFIG}: input_size is {taken}, but the image processor makes pixels of "
                f"{processor.channels}; save the one that belongs to this model."
            )
    elif config.get("vocab_size") is not None and (summary is None or summary.task not in _TASKS_OF_SYMBOLS):
        words = len(load_tokenizer(folder))
        most = config["vocab_size"]
        if config["model_type"] in MODEL_TYPES and words > most:
            raise CheckpointError(
                f"{folder / contents.CONFIG}: vocab_size is {most}, but the tokenizer makes {words} ids."
            )
    recipe = folder / "recipe.yaml"
    if summary is not None and recipe.exists():
        digest = content_sha256(read_yaml(recipe, error=CheckpointError))
        if digest != summary.recipe_sha256:
            raise CheckpointError(
                f"{recipe} is not the recipe of this training: its content has the sha256 {digest}, training.json says "
                f"{summary.recipe_sha256}."
            )


def check_model_type(config: Any, source: object) -> None:
    """Refuse the configuration of a model that is not urzoo's, before its weights are fetched.

    Raises:
        CheckpointError: It is of another model type.
    """
    found = config.get("model_type") if isinstance(config, dict) else None
    if found not in MODEL_TYPES:
        raise CheckpointError(f"{source} is of model_type {str(found)[:80]!r}, expected {' or '.join(MODEL_TYPES)}.")


def refuse_link(path: Path) -> None:
    """Refuse a link in place of a file: it could publish any file of this machine under a checkpoint's name.

    Raises:
        CheckpointError: It is a link, no regular file, or may not be read.
    """
    if path.is_symlink() or not path.is_file():
        raise CheckpointError(f"{path} is a link or no regular file; put the file itself there.")
    if not os.access(path, os.R_OK):
        raise CheckpointError(f"cannot read {path}: {os.strerror(errno.EACCES)}.")


def _code_of(folder: Path) -> set[str]:
    """The Python files that configuration and processor name in `auto_map`."""
    names: set[str] = set()
    for file in (folder / contents.CONFIG, folder / "preprocessor_config.json", folder / "tokenizer_config.json"):
        content = read_json(file, error=CheckpointError) if file.is_file() else {}
        mapping = content.get("auto_map", {}) if isinstance(content, dict) else {}
        for reference in _texts(mapping.values() if isinstance(mapping, dict) else [mapping]):
            module = re.fullmatch(r"([A-Za-z_]\w*)\.[A-Za-z_]\w*", reference)
            if module is None:
                raise CheckpointError(
                    f"{file} takes code from {reference[:80]!r}; expected MODULE.CLASS, a file of it."
                )
            names.add(f"{module[1]}.py")
    return names


def _texts(values: Iterable[Any]) -> Iterable[str]:
    for value in values:
        if isinstance(value, list | tuple):
            yield from _texts(value)
        elif value is not None:
            yield str(value)


def _check_card(card: Path) -> None:
    if not card.is_file():
        raise CheckpointError(f"{card.parent} has no {card.name}; write the model card with `urzoo card` first.")
    front = re.match(r"---\n(.*?)\n---\n", card.read_text(encoding="utf-8-sig", errors="replace"), flags=re.DOTALL)
    metadata = parse_yaml(front[1], f"the metadata of {card}", error=CheckpointError) if front else None
    if not isinstance(metadata, dict):
        raise CheckpointError(f"{card} does not begin with metadata in YAML between two lines of ---; write it again.")


def refuse_token(source: object, content: bytes) -> None:
    """Refuse to publish a file that holds an access token of the Hub.

    Raises:
        CheckpointError: It does; the message names `source`.
    """
    if _TOKEN.search(content):
        raise CheckpointError(f"{source} holds an access token of the Hub; take it out before anything is sent.")


def _read(folder: Path, name: str) -> LocalFile:
    path = folder / name
    refuse_link(path)
    size_bytes = path.stat().st_size
    if size_bytes > contents.largest_bytes(name):
        raise CheckpointError(f"{path} has {size_bytes} bytes; expected at most {contents.largest_bytes(name)}.")
    content = path.read_bytes()
    if not contents.is_weights(name):
        refuse_token(path, content)
    return LocalFile(name, content, hashlib.sha256(content).hexdigest())
