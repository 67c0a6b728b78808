"""The result file: one checkpoint on one task, with everything needed to believe it and to repeat it.

A file lives at `<results>/<model>/<task>.json`, where a `/` of the model's name is written `__`; the name
of a model that is not shipped ends in digits of its digest, so that other weights have another file. The
schema is strict: a key that is missing, unknown or of the wrong type makes the file unreadable, so
that no row of the leaderboard lacks its provenance. When a field changes, `SCHEMA_VERSION` grows and
`_UPGRADES` says how the older content becomes the newer; old files must keep loading.

Metrics are stored in the metric's natural unit (an accuracy as a fraction of 1); the task's file says
how they are shown (`MetricSpec.scale`, `unit`, `digits`).
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from urzoo.errors import ResultError
from urzoo.files import write_json
from urzoo.schema import Count, GitCommit, Line, Moment, Name, Positive, Seconds, Sha256, Strict, read_json, validated
from urzoo.zoo.schema import CheckpointInfo, SelectionSplit

SCHEMA_VERSION: Final = 1

ModelName = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*(/[A-Za-z0-9][A-Za-z0-9._+-]*)?$", max_length=193)
]
DType = Literal["float32", "float64", "bfloat16", "float16"]


class TrainingRecord(Strict):
    """What a result repeats from the checkpoint's `training.json`."""

    task: Name
    wall_seconds: Seconds
    epochs: Annotated[float, Field(ge=0)]
    seed: Count
    selection_split: SelectionSplit
    hardware: Line
    recipe_sha256: Sha256


class ModelRecord(Strict):
    """The model that was evaluated; the fields are those of `CheckpointInfo`, `revision` is the Hub's commit."""

    name: ModelName
    source: Literal["shipped", "study", "folder", "Hub"]
    revision: Line | None
    architecture: Line
    cell: Line | None
    gate: Line | None
    hidden_size: Positive | None
    num_layers: Positive | None
    parameters: Count
    weights_sha256: Sha256
    checkpoint_sha256: Sha256
    training: TrainingRecord | None


class TaskRecord(Strict):
    """The task and the version of its definition; rows of different versions are never compared."""

    name: Name
    version: Positive


class DataRecord(Strict):
    """The data that were evaluated on.

    `rows` counts the rows the task asks for, `digest` is the verified digest of the whole split, and `subset` says in
    words which part of the split was used where it was not all. `source` is "local" for a user's own data: such
    a result never reaches the leaderboard.
    """

    name: Name
    config: Name
    split: Name
    subset: Line | None
    rows: Positive
    digest: Sha256
    source: Literal["data root", "shipped", "Hub", "generated", "local"]


class Interval(Strict):
    """An interval around a metric, in the metric's stored unit."""

    low: float
    high: float
    level: Annotated[float, Field(gt=0, lt=1)]
    method: Line

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}")
        return self


class Result(Strict):
    """One checkpoint's scores on one task.

    `samples` counts the rows of the data that the metrics cover; `partial` is true where that is fewer than the task
    asks for (`--limit`), and such a result never reaches the leaderboard. `command` repeats the evaluation.
    `wall_seconds` covers preprocessing and the model, not loading the data and the weights.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    model: ModelRecord
    task: TaskRecord
    data: DataRecord
    metrics: Annotated[dict[Name, float], Field(min_length=1, max_length=50)]
    primary_metric: Name
    intervals: Annotated[dict[Name, Interval], Field(max_length=50)]
    samples: Positive
    partial: bool
    batch_size: Positive
    dtype: DType
    device: Line
    hardware: Line
    backend: Line
    threads: Positive
    processes: Positive
    seed: Count
    urzoo_version: Line
    git_commit: GitCommit | None
    torch_version: Line
    transformers_version: Line
    python_version: Line
    command: Line
    started_at: Moment
    wall_seconds: Seconds

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.primary_metric not in self.metrics:
            raise ValueError(f"primary_metric {self.primary_metric!r} is not among the metrics")
        if stray := sorted(set(self.intervals) - set(self.metrics)):
            raise ValueError(f"intervals has {stray[0]!r}, which is not among the metrics")
        if self.samples > self.data.rows:
            raise ValueError(f"samples is {self.samples}, but data.rows is {self.data.rows}")
        if self.partial != (self.samples < self.data.rows):
            raise ValueError(f"partial is {self.partial} with {self.samples} samples of {self.data.rows} rows")
        return self


# From a schema version to the function that makes its content the next version's. Empty while there is only one.
_UPGRADES: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}


def result_name(checkpoint: CheckpointInfo, name: str | None = None) -> str:
    """What results call a checkpoint: its name if shipped or the study's, else a safe one with digits of its digest.

    Training names many a folder `checkpoint-500`: the digest of what decides the answers tells them apart.

    Args:
        checkpoint: The checkpoint.
        name: OWNER/NAME for one of the Hub; the folder's name when omitted.
    """
    if checkpoint.source in ("shipped", "study") and name is None:
        return checkpoint.name
    parts = [re.sub(r"[^A-Za-z0-9._-]+", "-", part).strip("-._")[:80] for part in (name or checkpoint.name).split("/")]
    return f"{'/'.join(part or 'model' for part in parts)}+{checkpoint.checkpoint_sha256[:8]}"


def plain_name(model: str) -> str:
    """A model's name in results without the digits of its digest."""
    return model.partition("+")[0]


def result_path(results: Path, model: str, task: str) -> Path:
    """Where the result of `model` on `task` lives under the folder `results`."""
    return results / folder_name(model) / f"{task}.json"


def folder_name(model: str) -> str:
    """The folder of a model's results: its name with `/` written `__`."""
    return model.replace("/", "__")


def parse_result(content: Any, source: object) -> Result:
    """The content of a result file as a `Result`, upgraded from an older schema where need be.

    Raises:
        ResultError: The content is malformed, or of a schema that this version does not know.
    """
    if not isinstance(content, dict):
        raise ResultError(f"{source} is not a result: expected a JSON object, got {type(content).__name__}.")
    if "schema_version" not in content:
        raise ResultError(f"{source}: key schema_version is missing. Run the evaluation again.")
    version = content["schema_version"]
    if not isinstance(version, int) or isinstance(version, bool):
        raise ResultError(f"{source}: key schema_version is {str(version)[:40]!r}: expected {SCHEMA_VERSION}.")
    if version > SCHEMA_VERSION:
        raise ResultError(
            f"{source} is of schema {version}, written by a newer urzoo; this one reads up to {SCHEMA_VERSION}. "
            "Upgrade urzoo (pip install -U urzoo)."
        )
    while version < SCHEMA_VERSION:
        if version not in _UPGRADES:
            raise ResultError(
                f"{source} is of schema {version}, which this urzoo no longer reads; it reads {SCHEMA_VERSION}. "
                "Run the evaluation again."
            )
        content = _UPGRADES[version](content)
        version += 1
    return validated(Result, content, source, error=ResultError)


def read_result(path: Path) -> Result:
    """The result in a file.

    Raises:
        ResultError: The file cannot be read, is not JSON, or is not a result; the message names the file and the key.
    """
    try:
        return parse_result(read_json(path, error=ResultError), path)
    except ResultError as failure:
        raise ResultError(f"{failure} Remove it and evaluate again.") from failure


def write_result(results: Path, result: Result) -> Path:
    """Write `result` to its place under the folder `results` in one step, and return that place."""
    path = result_path(results, result.model.name, result.task.name)
    write_json(path, result.model_dump(mode="json"))
    return path
