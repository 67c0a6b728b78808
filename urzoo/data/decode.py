"""From parquet files to plain arrays: images as uint8, labels as int64, texts as str, sequences as float32."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from urzoo.data.schema import Column, DataSet, ImageColumn, LabelColumn, SequenceColumn
from urzoo.errors import DataError, one_line

if TYPE_CHECKING:
    import pyarrow as pa

_MODES = {1: "L", 3: "RGB"}


def decode(files: Sequence[Path], data_set: DataSet) -> dict[str, npt.NDArray[Any] | list[Any]]:
    """The columns of `data_set` as they stand in its parquet `files`, decoded; for the forms see `digest.py`.

    Raises:
        DataError: A file is damaged, lacks a column, or holds a value of another form; one line that names the file.
    """
    tables = [_read(path, data_set) for path in files]
    columns: dict[str, npt.NDArray[Any] | list[Any]] = {}
    for name, column in data_set.columns.items():
        parts = [_decoded(table.column(name), name, column, path) for table, path in zip(tables, files, strict=True)]
        if isinstance(parts[0], np.ndarray):
            columns[name] = np.concatenate(parts) if len(parts) > 1 else parts[0]
        else:
            columns[name] = [value for part in parts for value in part]
    return columns


def _read(path: Path, data_set: DataSet) -> "pa.Table":
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # memory_map would let a file that shrinks under us end the process.
        schema = pq.read_schema(path)
        if missing := [name for name in data_set.columns if name not in schema.names]:
            raise DataError(f"{path} lacks the column {missing[0]!r} of {data_set.name}; it has {schema.names}.")
        return pq.read_table(path, columns=list(data_set.columns))
    except (pa.ArrowException, OSError) as failure:
        raise DataError(f"{path} is damaged or no parquet file: {one_line(failure)}. Fetch it again.") from failure


def _decoded(values: "pa.ChunkedArray", name: str, column: Column, path: Path) -> Any:
    if values.null_count:
        raise DataError(f"{path} has {values.null_count} empty values in column {name!r}.")
    if isinstance(column, ImageColumn):
        return _images(values, name, column, path)
    try:
        if isinstance(column, LabelColumn):
            return _labels(values, name, column, path)
        if isinstance(column, SequenceColumn):
            return _sequences(values, name, column, path)
    except (ValueError, TypeError, OverflowError) as failure:
        raise DataError(f"{path}: column {name!r} has values of another type: {one_line(failure)}.") from failure
    try:
        texts = values.to_pylist()
    except UnicodeDecodeError as failure:
        raise DataError(f"{path}: column {name!r} holds text that is not UTF-8: {failure}.") from failure
    if texts and not isinstance(texts[0], str):
        raise DataError(f"{path}: column {name!r} holds {type(texts[0]).__name__}, expected text.")
    return texts


def _images(values: "pa.ChunkedArray", name: str, column: ImageColumn, path: Path) -> npt.NDArray[np.uint8]:
    # A file holds some 30 microseconds' work an image for Pillow; that is 2 s for MNIST's training split.
    shape: tuple[int, ...] = (column.height, column.width)
    if column.channels == 3:
        shape = (*shape, 3)
    images = np.empty((len(values), *shape), dtype=np.uint8)
    for row, value in enumerate(values.to_pylist()):
        encoded = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(encoded, bytes):
            raise DataError(f"{path}: row {row} of column {name!r} holds no image bytes.")
        try:
            with Image.open(io.BytesIO(encoded)) as image:
                ImageOps.exif_transpose(image, in_place=True)
                if image.size != (column.width, column.height) or image.mode != _MODES[column.channels]:
                    raise DataError(
                        f"{path}: image {row} is {image.size[0]} x {image.size[1]} {image.mode}, "
                        f"expected {column.width} x {column.height} {_MODES[column.channels]}; bring all images to one "
                        "size and mode, L or RGB."
                    )
                images[row] = np.asarray(image)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as failure:
            raise DataError(f"{path}: image {row} cannot be decoded: {one_line(failure)}.") from failure
    return images


def _labels(values: "pa.ChunkedArray", name: str, column: LabelColumn, path: Path) -> npt.NDArray[np.int64]:
    labels: npt.NDArray[Any] = values.to_numpy()
    if labels.dtype.kind not in "iu":
        raise DataError(f"{path}: column {name!r} holds {labels.dtype}, expected whole numbers.")
    labels = labels.astype(np.int64)
    lowest = -1 if column.unlabelled else 0
    if labels.size and (labels.min() < lowest or labels.max() >= len(column.classes)):
        found = f"{labels.min()} to {labels.max()}"
        raise DataError(f"{path}: column {name!r} has {found}, expected {lowest} to {len(column.classes) - 1}.")
    return labels


def _sequences(values: "pa.ChunkedArray", name: str, column: SequenceColumn, path: Path) -> list[npt.NDArray[Any]]:
    with np.errstate(over="ignore"):  # numbers too large for float32 are told of below
        sequences = [np.asarray(value, dtype=np.float32) for value in values.to_pylist()]
    for row, sequence in enumerate(sequences):
        if sequence.ndim != 2 or sequence.shape[1] != column.channels:
            raise DataError(f"{path}: sequence {row} has shape {sequence.shape}, expected (time, {column.channels}).")
        if not np.isfinite(sequence).all():
            raise DataError(f"{path}: sequence {row} of column {name!r} has a NaN or an infinity.")
    return sequences
