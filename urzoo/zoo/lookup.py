"""Checkpoints by name or folder, and what can be said of one without building its model."""

import hashlib
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from urzoo.errors import CheckpointError, UsageError, near_matches
from urzoo.files import expanded, packaged
from urzoo.markdown import printable
from urzoo.schema import describe, read_json
from urzoo.zoo.schema import CheckpointInfo, TrainingSummary, read_training_summary
from urzoo.zoo.weights import (
    WEIGHTS_FILE,
    file_sha256,
    parameter_count,
    read_headers,
    stored_dtype,
    weights_files,
    weights_sha256,
)

CHECKPOINTS_FOLDER = Path(__file__).parent / "checkpoints"
STUDY_FOLDER = Path("leaderboard/gating_study")
"""The networks of the gating study: in a clone, beside the results, and no part of the package."""
TRAINING_FILE = "training.json"
# The files that decide what a checkpoint answers to an input; cards, logs and recipes do not.
DECIDING = (
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "spm.model",
    "bpe.codes",
    "tokenizer.model",
)


class NoCheckpointError(UsageError, CheckpointError):
    """A folder that was named is not there, or holds no checkpoint."""


class UnknownCheckpointError(NoCheckpointError):
    """A name is neither that of a checkpoint nor that of a folder.

    Args:
        name: The name.
        recommended: Names to take instead, where they are known.
    """

    def __init__(self, name: str, recommended: Iterable[str] = ()) -> None:
        near = near_matches(name, [*checkpoints(), *study_checkpoints()])
        listed = f" Recommended: {', '.join(recommended)}." if recommended else ""
        super().__init__(f"unknown checkpoint {name!r}.{near}{listed} `urzoo list --all` shows all. Or give a folder.")
        self.name = name


def checkpoints() -> list[str]:
    """The names of the checkpoints shipped with the package, sorted."""
    return [file.parent.name for file in packaged(CHECKPOINTS_FOLDER, "*/config.json")]


def study_checkpoints() -> list[str]:
    """The names of the gating study's networks, sorted; none unless the current folder is that of a clone."""
    return sorted(folder.parent.name for folder in STUDY_FOLDER.glob("*/config.json"))


def path(name_or_folder: str | Path) -> Path:
    """The folder of a checkpoint.

    Args:
        name_or_folder: The name of a shipped checkpoint or of one of the study, or a folder with a `config.json`.

    Raises:
        NoCheckpointError: It is neither, or the folder has no `config.json`; the message has near matches.
        UsageError: It is such a name, and another checkpoint is in a folder of this name here.
    """
    text = str(name_or_folder)
    if isinstance(name_or_folder, str):
        for names, home in ((checkpoints, CHECKPOINTS_FOLDER), (study_checkpoints, STUDY_FOLDER)):
            if text in names():
                if Path(text, "config.json").is_file() and not Path(text).samefile(home / text):
                    raise UsageError(
                        f"{text!r} is the name of a checkpoint of urzoo and of a folder here, which is another one; "
                        f"give ./{text} for the folder, or {home / text} for urzoo's."
                    )
                return home / text
    folder = expanded(name_or_folder)
    if text and folder.is_dir():
        if not (folder / "config.json").is_file():
            raise NoCheckpointError(
                f"{folder} is no checkpoint folder: it has no config.json; expected one as `urzoo export` makes it."
            )
        return folder
    if isinstance(name_or_folder, Path) or text.startswith((".", "/", "~")) or text.count("/") > 1:
        raise NoCheckpointError(
            f"there is no folder {text!r}; expected a checkpoint folder, or a name of `urzoo list --all`."
        )
    raise UnknownCheckpointError(text)


def checkpoint_name(name_or_folder: str | Path) -> str:
    """What a checkpoint is called in results: its shipped name, else its folder's name.

    A folder called `checkpoint`, where training leaves its outcome, is called after the run's folder. What of a name
    cannot be printed, or is no UTF-8, is left out.
    """
    folder = path(name_or_folder).resolve()
    name = folder.parent.name if folder.name == "checkpoint" else folder.name
    return " ".join(printable(os.fsencode(name).decode(errors="replace")).split())


def training_summary(folder: Path) -> TrainingSummary | None:
    """What `training.json` of a checkpoint folder says, None if there is no such file."""
    file = folder / TRAINING_FILE
    return read_training_summary(file) if file.exists() else None


def info(name_or_folder: str | Path) -> CheckpointInfo:
    """What the zoo knows of a checkpoint; the weights are checked, the model is not built.

    Raises:
        UsageError: There is no such checkpoint.
        CheckpointError: A file of it is missing or damaged, or its weights are not those that training recorded.
    """
    folder = path(name_or_folder)
    config = read_config(folder)
    header = read_headers(folder)
    training = training_summary(folder)
    weights = verified_weights_sha256(folder, training)
    known = _urzoo_fields(config) if config["model_type"] == "urlstm" else {}
    try:
        return CheckpointInfo(
            name=checkpoint_name(name_or_folder),
            folder=folder,
            source=_source(folder),
            architecture=config["architectures"][0],
            model_type=config["model_type"],
            cell=known.get("cell"),
            gate=known.get("gate"),
            hidden_size=known.get("hidden_size"),
            num_layers=known.get("num_layers"),
            parameters=parameter_count(header),
            weights_bytes=sum(file.stat().st_size for file in weights_files(folder)),
            weights_dtype=stored_dtype(header),
            weights_sha256=weights,
            checkpoint_sha256=_checkpoint_sha256(folder, weights),
            task=training.task if training else None,
            training=training,
        )
    except ValidationError as failure:
        # Names and sizes come from the checkpoint's own config.json, which nothing vouches for.
        raise CheckpointError(f"{folder / 'config.json'}: {describe(failure)}") from failure


def read_config(folder: Path) -> dict[str, Any]:
    """The content of a checkpoint's config.json, which must name its architecture and model type.

    Raises:
        CheckpointError: The file is missing, malformed, or lacks one of the two.
    """
    file = folder / "config.json"
    config = read_json(file, error=CheckpointError)
    if not isinstance(config, dict):
        raise CheckpointError(f"{file} is not a JSON object.")
    architectures, model_type = config.get("architectures"), config.get("model_type")
    if not (isinstance(architectures, list) and architectures and isinstance(architectures[0], str)):
        raise CheckpointError(f"{file}: key architectures is missing; expected the class of the model, in a list.")
    if not isinstance(model_type, str) or not re.fullmatch(r"[\w.-]{1,64}", model_type):
        raise CheckpointError(f"{file}: key model_type is missing; expected a name such as urlstm.")
    return config


def verified_weights_sha256(folder: Path, training: TrainingSummary | None) -> str:
    """The sha256 of a checkpoint's weights file, compared with the one that training recorded.

    Raises:
        CheckpointError: The two differ.
    """
    weights = weights_sha256(folder)
    if training is not None and training.weights_sha256 != weights:
        raise CheckpointError(
            f"{weights_files(folder)[0]} is damaged or was replaced: its sha256 is {weights}, "
            f"{TRAINING_FILE} says {training.weights_sha256}. Fetch the checkpoint again."
        )
    return weights


def _source(folder: Path) -> Literal["shipped", "study", "folder"]:
    home = folder.resolve().parent
    return (
        "shipped" if home == CHECKPOINTS_FOLDER.resolve() else "study" if home == STUDY_FOLDER.resolve() else "folder"
    )


def _urzoo_fields(config: dict[str, Any]) -> dict[str, Any]:
    """The fields of an urzoo configuration; transformers leaves out of config.json what has its default value."""
    fields = ("cell", "gate", "hidden_size", "num_layers")
    if all(field in config for field in fields):
        return {field: config[field] for field in fields}
    from urzoo.models.configuration_urlstm import URLSTMConfig

    defaults = URLSTMConfig()
    return {field: config.get(field, getattr(defaults, field)) for field in fields}


def _checkpoint_sha256(folder: Path, weights: str) -> str:
    parts = [f"{WEIGHTS_FILE} {weights}"]
    parts += [f"{name} {file_sha256(folder / name)}" for name in DECIDING if (folder / name).is_file()]
    return hashlib.sha256("\n".join(sorted(parts)).encode()).hexdigest()
