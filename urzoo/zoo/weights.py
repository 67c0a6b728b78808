"""Weights files: looked at completely before any of their numbers reaches a model.

A safetensors file is a header (names, types, shapes, offsets) and the numbers. `read_header` refuses a file that is
truncated, padded or whose header is damaged; `check_against` refuses one that does not fit the model; the sha256
of `training.json` finds a flipped bit among the numbers. Weights may be in several files (shards), with an index that
says which tensor is in which.
"""

import hashlib
import math
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from urzoo.errors import CheckpointError, one_line
from urzoo.schema import read_json

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
_SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors", re.ASCII)
# Some ten thousand tensors; reading a larger header would take seconds.
_LARGEST_HEADER_BYTES = 1024 * 1024


_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


class Tensor(NamedTuple):
    """What a header says of one tensor; `dtype` is safetensors' name for it, as "F32"."""

    shape: tuple[int, ...]
    dtype: str


def weights_files(folder: Path) -> list[Path]:
    """The files of a checkpoint's weights: `model.safetensors`, or where there is none the shards of the index.

    Raises:
        CheckpointError: The index is malformed.
    """
    if (folder / WEIGHTS_FILE).is_file() or not (folder / INDEX_FILE).is_file():
        return [folder / WEIGHTS_FILE]
    return [folder / name for name in sorted(set(_index(folder).values()))]


def read_headers(folder: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint's weights by name, of all shards.

    Raises:
        CheckpointError: A file is missing or damaged, or the index says otherwise than the shards.
    """
    files = weights_files(folder)
    if files == [folder / WEIGHTS_FILE]:
        return read_header(files[0])
    headers = {file.name: read_header(file) for file in files}
    found = {(name, file) for file, header in headers.items() for name in header}
    if stray := sorted(found ^ set(_index(folder).items())):
        name, file = stray[0]
        raise CheckpointError(
            f"{folder / INDEX_FILE} and {file} do not agree about {name!r}. Fetch the checkpoint again."
        )
    return {name: tensor for header in headers.values() for name, tensor in header.items()}


def weights_sha256(folder: Path) -> str:
    """The sha256 of a checkpoint's weights; of shards that of their names and sha256, a line each."""
    files = weights_files(folder)
    if files == [folder / WEIGHTS_FILE]:
        return file_sha256(files[0])
    lines = "".join(f"{file_sha256(file)}  {file.name}\n" for file in files)
    return hashlib.sha256(lines.encode()).hexdigest()


def _index(folder: Path) -> dict[str, str]:
    """Which tensor is in which shard."""
    file = folder / INDEX_FILE
    content = read_json(file, error=CheckpointError)
    shards = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(shards, dict) or not shards:
        raise CheckpointError(f"{file}: key weight_map is missing; expected which tensor is in which file.")
    for name in shards.values():
        if not isinstance(name, str) or not _SHARD.fullmatch(name):
            raise CheckpointError(
                f"{file} names {str(name)[:80]!a}, expected files such as model-00001-of-00002.safetensors."
            )
    return shards


def read_header(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file by name, without reading their numbers.

    Raises:
        CheckpointError: The file is missing, no safetensors file, truncated, or its header is damaged.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise CheckpointError(f"{path.parent} has no {path.name}, so there are no weights to load.")
    try:
        with path.open("rb") as file:
            header_bytes = int.from_bytes(file.read(8), "little")
    except OSError as failure:
        raise CheckpointError(f"cannot read {path}: {failure.strerror or failure}.") from failure
    if header_bytes > _LARGEST_HEADER_BYTES:
        raise CheckpointError(
            f"{path} is truncated or damaged: its header has {header_bytes} bytes, expected at most "
            f"{_LARGEST_HEADER_BYTES}. Fetch the checkpoint again."
        )
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


def stored_dtype(header: Mapping[str, Tensor]) -> str:
    """The type that most elements of a header's tensors are stored in, by torch's name for it."""
    elements: Counter[str] = Counter()
    for tensor in header.values():
        elements[tensor.dtype] += math.prod(tensor.shape)
    name = elements.most_common(1)[0][0]
    return _DTYPES.get(name, name)


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
