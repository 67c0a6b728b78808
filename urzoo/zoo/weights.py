"""Weights files: looked at completely before any of their numbers reaches a model.

A safetensors file is a header (names, types, shapes, offsets) and the numbers. `read_header` refuses a file that is
truncated, padded or whose header is damaged; `check_against` refuses one that does not fit the model; the sha256
of `training.json` finds a flipped bit among the numbers.
"""

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from urzoo.errors import CheckpointError, one_line

WEIGHTS_FILE = "model.safetensors"


class Tensor(NamedTuple):
    """What a header says of one tensor; `dtype` is safetensors' name for it, as "F32"."""

    shape: tuple[int, ...]
    dtype: str


def read_header(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file by name, without reading their numbers.

    Raises:
        CheckpointError: The file is missing, no safetensors file, truncated, or its header is damaged.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise CheckpointError(f"{path.parent} has no {path.name}, so there are no weights to load.")
    try:
        with safe_open(path, framework="numpy") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
            header = {name: Tensor(tuple(part.get_shape()), part.get_dtype()) for name, part in slices.items()}
    except (SafetensorError, OSError) as failure:
        raise CheckpointError(
            f"{path} is truncated or damaged: {one_line(failure)}. Fetch the checkpoint again."
        ) from failure
    if not header:
        raise CheckpointError(f"{path} holds no tensors.")
    return header


def parameter_count(header: Mapping[str, Tensor]) -> int:
    """The number of elements of all tensors of a header."""
    return sum(math.prod(tensor.shape) for tensor in header.values())


def file_sha256(path: Path) -> str:
    """The sha256 of a file, in hexadecimal."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as failure:
        raise CheckpointError(f"cannot read {path}: {failure.strerror or failure}.") from failure


def check_against(
    header: Mapping[str, Tensor], expected: Mapping[str, tuple[int, ...]], shared: set[str], path: Path
) -> None:
    """Refuse weights that are not exactly those of a model.

    Args:
        header: From `read_header`.
        expected: The shape of each tensor of the model's state.
        shared: Names in `expected` that are tied to others and may be left out of the file.
        path: The file, for the message.

    Raises:
        CheckpointError: A tensor is missing, unknown, or of another shape; the message names the first.
    """
    missing = sorted(name for name in expected if name not in header and name not in shared)
    if missing:
        raise CheckpointError(f"{path} lacks {missing[0]!r} and {len(missing) - 1} more tensors of its config.json.")
    if stray := sorted(name for name in header if name not in expected):
        raise CheckpointError(f"{path} holds {stray[0]!r}, which the model of its config.json does not have.")
    for name, tensor in sorted(header.items()):
        if tensor.shape != expected[name]:
            raise CheckpointError(
                f"{path}: {name!r} has shape {tensor.shape}, expected {expected[name]} by its config.json."
            )
