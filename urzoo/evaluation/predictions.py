"""What a model said of every row, as a parquet file beside the result, with all that two files need to be compared."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from urzoo.errors import ResultError, one_line
from urzoo.evaluation.runner import Outcome
from urzoo.evaluation.schema import Result, parse_result, result_path
from urzoo.files import write_bytes

_RESULT_KEY, _ORDER_KEY = b"urzoo_result", b"urzoo_order_digest"


@dataclass(frozen=True)
class Predictions:
    """The columns of a predictions file, `row` among them, and the result they belong to.

    `order_digest` is as in `Outcome`; None of older files.
    """

    result: Result
    columns: Mapping[str, npt.NDArray[Any]]
    order_digest: str | None = None


def predictions_path(results: Path, model: str, task: str) -> Path:
    """Where the predictions of `model` on `task` live under the folder `results`."""
    return result_path(results, model, task).with_suffix(".predictions.parquet")


def write_predictions(path: Path, outcome: Outcome) -> None:
    """Write the predictions of an evaluation to `path` in one step."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({name: pa.array(values) for name, values in outcome.predictions.items()})
    told = {_RESULT_KEY: json.dumps(outcome.result.model_dump(mode="json"), sort_keys=True).encode()}
    if outcome.order_digest is not None:
        told[_ORDER_KEY] = outcome.order_digest.encode()
    buffer = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata(told), buffer, compression="zstd")
    write_bytes(path, buffer.getvalue().to_pybytes())


def read_predictions(path: Path) -> Predictions:
    """The predictions in a file.

    Raises:
        ResultError: The file is missing, damaged, or no predictions file.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.is_file():
        raise ResultError(f"there is no {path}; evaluate with --save-predictions first.")
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as failure:
        raise ResultError(f"{path} is damaged: {one_line(failure)}. Evaluate again.") from failure
    told = table.schema.metadata or {}
    record = told.get(_RESULT_KEY)
    if record is None or "row" not in table.column_names:
        raise ResultError(f"{path} is no predictions file of urzoo.")
    result = parse_result(json.loads(record), path)
    columns = {name: np.asarray(table.column(name)) for name in table.column_names}
    return Predictions(result, columns, told[_ORDER_KEY].decode(errors="replace") if _ORDER_KEY in told else None)
