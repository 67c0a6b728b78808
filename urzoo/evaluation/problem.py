"""What the runner asks of a kind of problem: batches of rows, outputs of the model, figures from the outputs.

A problem is made for one checkpoint, one task and one split. Outputs are numpy arrays with one entry per row, so
that they can be kept, divided among processes and put together in any order; figures are always computed from the
outputs of all rows at once.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from urzoo.data import Split
from urzoo.errors import CheckpointError
from urzoo.evaluation.journal import Outputs
from urzoo.evaluation.schema import DataRecord, Interval

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Figures:
    """The metrics of a task by name, and the intervals around some of them."""

    metrics: dict[str, float]
    intervals: dict[str, Interval]


@dataclass(frozen=True)
class Precision:
    """Where and in which type the model computes; `dtype` "bfloat16" and "float16" mean autocast over fp32 weights."""

    device: torch.device
    dtype: str

    @property
    def weights(self) -> torch.dtype:
        """The type that weights and inputs are held in."""
        return torch.float64 if self.dtype == "float64" else torch.float32

    def autocast(self) -> torch.autocast:
        """The context that the model is called in.

        Within a context of the caller's a cache of cast weights would outlive what dynamic evaluation writes to them.
        """
        enabled = self.dtype in {"bfloat16", "float16"}
        dtype = getattr(torch, self.dtype) if enabled else torch.bfloat16
        return torch.autocast(self.device.type, dtype=dtype, enabled=enabled, cache_enabled=False)


@contextlib.contextmanager
def exact_products() -> Iterator[None]:
    """Products of float32 in float32, though the caller has allowed others (`torch.set_float32_matmul_precision`)."""
    products = (torch.backends.mkldnn.matmul, torch.backends.cuda.matmul)  # type: ignore[attr-defined]
    precisions = [product.fp32_precision for product in products]
    for product in products:
        product.fp32_precision = "ieee"
    try:
        yield
    finally:
        for product, precision in zip(products, precisions, strict=True):
            product.fp32_precision = precision


class Problem(Protocol):
    """One checkpoint on one task's data."""

    data: DataRecord
    default_batch_size: int

    def batches(self, batch_size: int, rows: int) -> Sequence[Rows]:
        """The first `rows` rows in batches; the outputs must not depend on how they are divided."""

    def outputs(self, rows: Rows) -> Outputs:
        """What the model gives for these rows: arrays with one entry per row."""

    def figures(self, outputs: Outputs, rows: Rows) -> Figures:
        """The metrics of all `rows`, whose outputs are in the same order."""

    def predictions(self, outputs: Outputs, rows: Rows) -> dict[str, npt.NDArray[Any]]:
        """Columns that tell for every row what the model said and what was right."""


def widened(scores: torch.Tensor) -> torch.Tensor:
    """A model's scores in float32 at least, in which figures are made of them."""
    return scores.to(torch.promote_types(scores.dtype, torch.float32))


def refuse_not_finite(values: npt.NDArray[Any], rows: Rows, folder: Path) -> None:
    """Refuse a model's outputs for rows, `(rows, ...)`, where they are not numbers.

    Raises:
        CheckpointError: One of them is NaN or infinite.
    """
    finite = np.isfinite(values.reshape(len(rows), -1)).all(axis=1)
    if not finite.all():
        raise CheckpointError(f"{folder} gives NaN or infinite scores for row {rows[~finite][0]} of the data.")


def consecutive(batch_size: int, rows: int) -> list[Rows]:
    """Rows 0 to `rows` - 1 in batches of consecutive ones, the last of which may be smaller."""
    return [np.arange(start, min(start + batch_size, rows)) for start in range(0, rows, batch_size)]


def data_record(split: Split, *, subset: str | None = None, rows: int | None = None) -> DataRecord:
    """What a result says of its data; `rows` where a task counts something else than the split's rows."""
    return DataRecord(
        name=split.name,
        config=split.data_set.config,
        split=split.split,
        subset=subset,
        rows=rows or split.rows,
        digest=split.digest,
        source=split.source,
    )


def by_length(lengths: Sequence[int], batch_size: int) -> list[Rows]:
    """All rows in batches of similar length, the longest first, so that a lack of memory shows at once."""
    order = np.argsort(-np.asarray(lengths), kind="stable")
    return [order[part] for part in consecutive(batch_size, len(order))]
