"""What a checkpoint folder says about itself: `training.json` (written by training) and the zoo's own record.

`TrainingSummary` is written once, when training ends, and travels with the weights; results and model
cards copy from it. Changing a field means a new `schema_version` and a reader for the old one.
"""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field

from urzoo.data.schema import DataSet
from urzoo.errors import CheckpointError
from urzoo.schema import Count, GitCommit, Line, Moment, Name, Positive, Seconds, Sha256, Strict, read_json, validated

# The part of the data on which the shipped weights were chosen among others: never the test split.
SelectionSplit = Literal["validation", "none", "test", "unknown"]


class TrainingData(Strict):
    """The data a checkpoint was trained on.

    `digest` is that of all rows that were read, in any order, `order_digest` that of their order, by which some of them
    are held out; older checkpoints lack it.
    """

    name: Name
    config: Name
    split: Name
    digest: Sha256
    rows_train: Positive
    rows_validation: Count
    order_digest: Annotated[Sha256 | None, Field(exclude_if=lambda digest: digest is None)] = None

    @classmethod
    def of(
        cls, data_set: DataSet, split: str, digest: str, *, train: int, validation: int = 0, order: str | None = None
    ) -> Self:
        """Of a split, with so many rows (of articles: articles) to learn from, and others held out of it."""
        return cls(
            name=data_set.name,
            config=data_set.config,
            split=split,
            digest=digest,
            rows_train=train,
            rows_validation=validation,
            order_digest=order,
        )


class InitialCheckpoint(Strict):
    """An earlier checkpoint that another came from; its data count among those that were learnt from."""

    name: Name
    task: Name | None
    weights_sha256: Sha256
    recipe_sha256: Sha256 | None


class TrainingSummary(Strict):
    """How a checkpoint came to be; the content of its `training.json`.

    `selection_split` is "validation" where the best of several epochs or averages was kept by its score on
    rows held out of the training split, and "none" where the last weights were kept unseen. `wall_seconds`
    counts all of the run, also the parts before an interruption. `initialised_from` gave the weights to begin with,
    `taught_by` labels to rows that had none. `weights_sha256` is that of model.safetensors.
    """

    schema_version: Literal[1] = 1
    task: Name
    urzoo_version: Line
    git_commit: GitCommit | None
    torch_version: Line
    transformers_version: Line
    started_at: Moment
    wall_seconds: Seconds
    epochs: Annotated[float, Field(ge=0)]
    steps: Count
    seed: Count
    selection_split: SelectionSplit
    validation: dict[Name, float]
    data: TrainingData
    additional_data: tuple[TrainingData, ...] = ()
    initialised_from: InitialCheckpoint | None = None
    taught_by: InitialCheckpoint | None = None
    hardware: Line
    device: Line
    backend: Line
    dtype: Line
    peak_memory_mib: Annotated[float, Field(ge=0)]
    recipe_sha256: Sha256
    weights_sha256: Sha256


class CheckpointInfo(Strict):
    """What the zoo knows about a checkpoint without building the model.

    `cell`, `gate`, `hidden_size` and `num_layers` are None for models that are not urzoo's. `parameters` counts the
    elements of the weights file, so tied weights count once; `weights_dtype` is what most of them are stored in.
    `checkpoint_sha256` covers every file that decides what the model answers (weights, configuration, processor,
    tokenizer). `folder` is the machine's own matter and
    left out of `model_dump` and of every published file.
    """

    name: Line
    folder: Annotated[Path, Field(exclude=True)]
    source: Literal["shipped", "study", "folder", "Hub"]
    architecture: Line
    model_type: Line
    cell: Line | None
    gate: Line | None
    hidden_size: int | None
    num_layers: int | None
    parameters: Count
    weights_bytes: Count
    weights_dtype: Line
    weights_sha256: Sha256
    checkpoint_sha256: Sha256
    task: Name | None
    training: TrainingSummary | None


def read_training_summary(path: Path) -> TrainingSummary:
    """The content of a `training.json`.

    Raises:
        CheckpointError: The file is missing or malformed; the message names the key.
    """
    return validated(TrainingSummary, read_json(path, error=CheckpointError), path, error=CheckpointError)
