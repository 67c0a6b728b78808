"""The digest of a split's decoded content: the same from any source, in any order of rows.

Each row gives a sha256 of its columns in the order of their names; the split's digest is the sha256 of
the sorted row digests. Equal digests mean the same rows, however they were stored, compressed or shuffled.
A row is written as, for every column, the column's name and a zero byte, then

    image       height, width, channels as 32-bit little-endian integers, and the pixels
    label       a 64-bit little-endian integer
    text        the length in bytes as a 64-bit little-endian integer, and the text in UTF-8
    sequence    time, channels as 32-bit little-endian integers, and the values as little-endian float32

This encoding is part of every pinned digest: a change of it means new digests in every data set file.
"""

import hashlib
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Columns = Mapping[str, npt.NDArray[Any] | list[Any]]


def row_digests(columns: Columns) -> list[bytes]:
    """The sha256 of every row, in the order of the rows.

    Args:
        columns: Decoded columns of equal length: uint8 images `(rows, height, width)` or `(rows, height, width, 3)`,
            int64 labels `(rows,)`, a list of str, or a list of float32 arrays `(time, channels)`.
    """
    encoded = [_encoded(name, columns[name]) for name in sorted(columns)]
    return [hashlib.sha256(b"".join(parts)).digest() for parts in zip(*encoded, strict=True)]


def content_digest(columns: Columns) -> str:
    """The digest of the whole content, in hexadecimal; it does not depend on the order of the rows."""
    return hashlib.sha256(b"".join(sorted(row_digests(columns)))).hexdigest()


def order_digest(columns: Columns) -> str:
    """The digest of the content in its order, in hexadecimal: that of the row digests as they follow one another."""
    return hashlib.sha256(b"".join(row_digests(columns))).hexdigest()


def _encoded(name: str, column: npt.NDArray[Any] | list[Any]) -> Iterator[bytes]:
    prefix = name.encode() + b"\0"
    if isinstance(column, np.ndarray) and column.dtype == np.uint8:
        height, width, channels = (*column.shape[1:], 1)[:3]
        prefix += struct.pack("<III", height, width, channels)
        return (prefix + image.tobytes() for image in column)
    if isinstance(column, np.ndarray) and column.dtype == np.int64:
        return (prefix + struct.pack("<q", label) for label in column.tolist())
    if column and isinstance(column[0], str):
        return (_encoded_text(prefix, text) for text in column)
    return (_encoded_sequence(prefix, sequence) for sequence in column)


def _encoded_text(prefix: bytes, text: str) -> bytes:
    content = text.encode("utf-8")
    return prefix + struct.pack("<Q", len(content)) + content


def _encoded_sequence(prefix: bytes, sequence: Sequence[Any]) -> bytes:
    values = np.asarray(sequence, dtype="<f4")
    return prefix + struct.pack("<II", *values.shape) + values.tobytes()
