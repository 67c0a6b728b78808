"""Loading a checkpoint's model and image processor, only after its files have been found complete and fitting.

Code that lies beside the weights is never run: the classes are those that transformers and urzoo register.
"""

import contextlib
from collections.abc import Iterator
from logging import ERROR
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
)
from transformers.utils import logging

from urzoo.errors import BackendError, CheckpointError, UrzooError, UsageError, one_line
from urzoo.models.modeling_urlstm import LOADING
from urzoo.zoo.bounds import check_built, check_config, check_image_processor, check_json, check_sizes
from urzoo.zoo.lookup import path, read_config, training_summary, verified_weights_sha256
from urzoo.zoo.weights import check_against, read_headers, weights_files

# By transformers and torch, of a bad file.
_RAISED = (
    *(ValueError, TypeError, LookupError, OSError, RuntimeError),
    *(AttributeError, ImportError, AssertionError, ArithmeticError, SafetensorError),
)
_AUTO_CLASSES = {
    "ForImageClassification": AutoModelForImageClassification,
    "ForSequenceClassification": AutoModelForSequenceClassification,
    "ForCausalLM": AutoModelForCausalLM,
    "LMHeadModel": AutoModelForCausalLM,
    "Model": AutoModel,
}


def load(
    name_or_folder: str | Path,
    *,
    backend: str | None = None,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
) -> PreTrainedModel:
    """The model of a checkpoint, in evaluation mode.

    Args:
        name_or_folder: The name of a shipped checkpoint, or a checkpoint folder.
        backend: The recurrence's back end; the fastest usable one when omitted.
        dtype: The type of the weights.
        device: Where the model goes.

    Raises:
        UsageError: There is no such checkpoint, or the back end, type or device is not one.
        CheckpointError: A file of it is missing, damaged or does not fit the others; nothing was built from it.
    """
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise UsageError(f"dtype is {dtype!r}, expected a type of floats: torch.float32, torch.bfloat16.")
    folder = path(name_or_folder)
    raw = read_config(folder)
    architecture = raw["architectures"][0]
    header = read_headers(folder)
    weights = weights_files(folder)[0]
    check_config(raw, folder / "config.json")
    check_sizes(raw, header, folder / "config.json")
    check_json(folder)
    if (folder / "adapter_config.json").exists():
        # transformers would put it on where peft is installed: other answers than the digest of the checkpoint tells.
        raise CheckpointError(
            f"{folder} holds an adapter beside the model; merge it (peft: model.merge_and_unload()) and save the whole."
        )
    verified_weights_sha256(folder, training_summary(folder))
    config = _config(folder)
    if backend is not None:
        if config.model_type != "urlstm":
            raise BackendError(f"backend is {backend!r}, but {config.model_type} models have none; leave it out.")
        from urzoo.errors import unknown
        from urzoo.recurrence.scan import backends

        if backend not in backends():
            raise BackendError(unknown("backend", backend, backends()))
        config.backend = backend
    with _quiet(), _one_line(folder):
        with torch.device("meta"):
            blank = _auto_class(architecture, folder).from_config(config, trust_remote_code=False)
        if type(blank).__name__ != architecture:
            raise CheckpointError(
                f"{folder / 'config.json'}: architectures is {architecture!r}, expected {type(blank).__name__!r} for "
                f"model_type {config.model_type!r}."
            )
        if config.model_type == "urlstm":
            expected = {name: tuple(tensor.shape) for name, tensor in blank.state_dict().items()}
            check_against(header, expected, set(blank.all_tied_weights_keys), weights)
        check_built(blank, header, weights)
        model, report = type(blank).from_pretrained(
            folder, config=config, dtype=dtype, use_safetensors=True, local_files_only=True, output_loading_info=True
        )
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        if report.get(kind):
            raise CheckpointError(f"{weights} does not fit {architecture}: {kind} {sorted(map(str, report[kind]))[0]}.")
    for name, parameter in model.named_parameters():
        if not torch.isfinite(parameter).all():
            raise CheckpointError(f"{weights} is damaged: {name!r} holds a NaN or an infinity.")
    return _moved(model, device)


def load_image_processor(name_or_folder: str | Path) -> Any:
    """The image processor of a checkpoint.

    Raises:
        UsageError: There is no such checkpoint.
        CheckpointError: Its `preprocessor_config.json` is missing or malformed.
    """
    folder = path(name_or_folder)
    _require(folder, "preprocessor_config.json", "processor_config.json")
    check_json(folder)
    if read_config(folder)["model_type"] == "urlstm":
        check_image_processor(folder / "preprocessor_config.json")
    with _quiet(), _one_line(folder):
        return AutoImageProcessor.from_pretrained(  # type: ignore[no-untyped-call]
            folder, trust_remote_code=False, local_files_only=True
        )


def load_tokenizer(name_or_folder: str | Path) -> Any:
    """The tokenizer of a checkpoint.

    Raises:
        UsageError: There is no such checkpoint.
        CheckpointError: Its tokenizer files are missing or malformed.
    """
    folder = path(name_or_folder)
    _require(folder, "tokenizer.json", "tokenizer_config.json")
    check_json(folder)
    with _quiet(), _one_line(folder):
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)


def _require(folder: Path, *names: str) -> None:
    if not any((folder / name).is_file() for name in names):
        raise CheckpointError(f"{folder} has no {' or '.join(names)}, so its inputs cannot be prepared.")


def _config(folder: Path) -> Any:
    with _quiet(), _one_line(folder / "config.json"):
        return AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)


def _auto_class(architecture: str, folder: Path) -> Any:
    for suffix, auto_class in _AUTO_CLASSES.items():
        if architecture.endswith(suffix):
            return auto_class
    raise CheckpointError(
        f"{folder / 'config.json'}: architectures is {architecture!r}, expected a name that ends in "
        f"{', '.join(_AUTO_CLASSES)}."
    )


def _moved(model: PreTrainedModel, device: str | torch.device) -> PreTrainedModel:
    try:
        moved: PreTrainedModel = model.to(device)  # type: ignore[arg-type]
        return moved
    except (RuntimeError, AssertionError) as failure:
        raise UsageError(
            f"device is {str(device)!r}, which this machine does not offer: {one_line(failure)}."
        ) from failure


@contextlib.contextmanager
def _one_line(folder: Path) -> Iterator[None]:
    """What transformers says of a bad file, in one line."""
    try:
        yield
    except UsageError as failure:
        raise CheckpointError(f"{folder}: {failure}") from failure
    except UrzooError:
        raise
    except _RAISED as failure:
        raise CheckpointError(f"{folder} cannot be loaded: {one_line(failure)}.") from failure


@contextlib.contextmanager
def quiet_transformers(level: int) -> Iterator[None]:
    """Leave transformers' progress bars out of the output, and what it says below a level of `logging`."""
    verbosity, shown = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(max(verbosity, level))
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if shown:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No loading reports: what is wrong is raised here, in one line."""
    # The verbosity is the process's: one thread at a time changes it and puts it back.
    with LOADING, quiet_transformers(ERROR):
        yield
