"""Tasks by name: what is evaluated on which data, by which metrics. One YAML file each in `tasks/`.

Adding a task is adding a file. A user's own task is a file anywhere, named by its path (`_local_task`). A task's
`version` grows when its data, the preprocessing it demands or the definition of a metric changes; results of different
versions are never compared.
"""

from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from urzoo.data.local import register
from urzoo.errors import DataError, UrzooError, UsageError, unknown
from urzoo.files import expanded, packaged
from urzoo.schema import Line, Name, Positive, Seed, Strict, content_sha256, read_yaml, validated

# Steps for each step of the data; more only fill the memory.
LARGEST_TIME_SCALE = 1000.0
LOCAL: dict[str, "Task"] = {}
"""The tasks of the user's own files that were loaded by path, by name."""
TASKS_FOLDER = Path(__file__).parent / "tasks"
ProblemName = Literal[
    "image-classification",
    "text-classification",
    "series-classification",
    "language-modelling-stream",
    "language-modelling-pages",
    "copy",
    "adding",
]


class DataSpec(Strict):
    """The data set (a name of `urzoo.data`) and the split that are evaluated on."""

    name: Name
    split: Name


class Requirements(Strict):
    """What the checkpoint's preprocessing must do, so that no other problem's model scores here.

    `permutation_seed` is the seed of `urzoo.models.pixel_permutation` where `pixel_order` is "permuted".
    """

    pixel_order: Literal["raster", "permuted"]
    permutation_seed: Seed | None
    channels: Literal[1, 3]
    steps: Positive

    @model_validator(mode="after")
    def _seed_only_if_permuted(self) -> Self:
        if (self.pixel_order == "permuted") != (self.permutation_seed is not None):
            raise ValueError("permutation_seed is needed with pixel_order permuted, and only there")
        return self


class MetricSpec(Strict):
    """A metric of a task. It is shown as `value * scale` in `unit` with `digits` decimals.

    `tolerance`, in the stored unit, is how far a re-evaluation on another machine may lie off.
    """

    name: Name
    title: Line
    unit: Line
    scale: float
    digits: Annotated[int, Field(ge=0, le=6)]
    higher_is_better: bool
    primary: bool
    tolerance: Annotated[float, Field(ge=0)]


class DynamicEvaluation(Strict):
    """How a language model learns while it is evaluated: see `urzoo.evaluation.dynamic_evaluation`.

    A step of `learning_rate` after each `segment_tokens` tokens, and then `decay` of the way back to the checkpoint.
    The scores of a segment, and what their gradient needs, are held at once.
    """

    learning_rate: Annotated[float, Field(gt=0, le=1)]
    decay: Annotated[float, Field(ge=0, lt=1)]
    segment_tokens: Annotated[int, Field(ge=1, le=512)]


class Task(Strict):
    """A task file.

    `requires` is for images only. `time_scale`, for series only, is how many steps stand for each step of the data:
    2.0 is twice the sampling rate. `trained_as` names the task whose checkpoints are evaluated, where that is another,
    and `caveats` what a reader must know of the scores here of checkpoints that were trained for some other task.
    `context`, for language models only, names what they may use beside their state: "neural-cache" with the settings of
    the checkpoint's configuration. `dynamic_evaluation`, of a stream, lets them learn from what they have read. Rows of
    different contexts are rows of different tasks, and never ranked together.
    `chance` is what the primary metric gives, as stored, for an answer that is always the same, the best of those.
    `published` is the key under which the leaderboard keeps published figures of the same task, and `order` says where
    the task stands there: the lower, the earlier. `quick_rows` is how many rows `urzoo reproduce` repeats unless it is
    told to take all: some ten seconds of an older machine with two cores; all where it is null.
    """

    name: Name
    version: Positive
    title: Line
    description: Line
    problem: ProblemName
    data: DataSpec
    requires: Requirements | None = None
    time_scale: Annotated[float, Field(gt=0, le=LARGEST_TIME_SCALE)] | None = None
    trained_as: Name | None = None
    caveats: dict[Name, Line] = Field(default_factory=dict)
    context: Literal["neural-cache"] | None = None
    dynamic_evaluation: DynamicEvaluation | None = None
    metrics: Annotated[list[MetricSpec], Field(min_length=1)]
    chance: float | None = None
    licence: Line
    citation: Line
    published: Name | None
    order: int = 100
    quick_rows: Positive | None = None

    @model_validator(mode="after")
    def _one_primary_metric(self) -> Self:
        if sum(metric.primary for metric in self.metrics) != 1:
            raise ValueError("exactly one metric must be primary")
        if len({metric.name for metric in self.metrics}) != len(self.metrics):
            raise ValueError("a metric stands twice")
        if (self.problem == "image-classification") != (self.requires is not None):
            raise ValueError(
                "requires goes with problem image-classification, which needs it: what pixels a model gets"
            )
        if (self.problem == "series-classification") != (self.time_scale is not None):
            raise ValueError(
                "time_scale goes with problem series-classification, which needs it: 1.0 for no resampling"
            )
        if self.context is not None and not self.problem.startswith("language-modelling"):
            raise ValueError(f"context goes with language-modelling problems only; leave it out with {self.problem}")
        if self.dynamic_evaluation is not None and self.problem != "language-modelling-stream":
            raise ValueError(
                f"dynamic_evaluation goes with problem language-modelling-stream only; leave it out with {self.problem}"
            )
        return self

    def caveat_of(self, trained_for: str | None) -> str | None:
        """What to know of the score here of a checkpoint that was trained for a task, if there is anything."""
        return None if trained_for is None else self.caveats.get(trained_for)

    @property
    def checkpoints_of(self) -> str:
        """The task that the checkpoints evaluated here were trained for."""
        return self.trained_as or self.name

    @property
    def primary_metric(self) -> MetricSpec:
        """The metric that ranks."""
        return next(metric for metric in self.metrics if metric.primary)


def tasks() -> list[str]:
    """The names of all tasks, sorted."""
    return [path.stem for path in packaged(TASKS_FOLDER, "*.yaml")]


def load_task(name: str) -> Task:
    """The task called `name`, or that of a user's own file.

    Args:
        name: A name of `tasks()`; the path of a task file that ends in `.yaml`; or the name of one that was loaded
            by its path before, in this process.

    Raises:
        UsageError: There is no such task, with near matches in the message, or the file is malformed.
        DataError: The `dataset.yaml` of its data is malformed or missing.
    """
    if name.endswith((".yaml", ".yml")):
        task = _local_task(expanded(name))
        LOCAL[task.name] = task
        return task
    if name in LOCAL:
        return LOCAL[name]
    if name not in (known := tasks()):
        raise UsageError(
            f"{unknown('task', name, [*known, *LOCAL])} One of your own goes by its file: --task FILE.yaml"
        )
    return _shipped_task(name)


@cache
def _shipped_task(name: str) -> Task:
    path = TASKS_FOLDER / f"{name}.yaml"
    return validated(Task, read_yaml(path, error=UrzooError), path.name, error=UrzooError)


def _local_task(file: Path) -> Task:
    """The task of a user's own file, whose `data` names a folder, relative to the file, in place of a data set.

    What a file may leave out: `version`, `description`, `licence`, `citation`, and `metrics`, which are then those of
    urzoo's own tasks of the same problem. Nobody raises the version of a file that is being tried out: it is made of
    all that the figures depend on, so that no result of the file as it was before stands for it as it is.
    """
    if not file.is_file():
        raise UsageError(f"there is no task file {str(file)!r}; expected one, or a name: {', '.join(tasks())}.")
    content = read_yaml(file, error=UsageError)
    data = content.get("data") if isinstance(content, dict) else None
    if not (isinstance(data, dict) and data.keys() == {"folder", "split"} and isinstance(data["folder"], str)):
        raise UsageError(
            f"{file}: key data is {data!r}; expected a folder and a split: {{folder: ./digits, split: test}}."
        )
    folder = file.parent / expanded(data["folder"])
    if not folder.is_dir():
        raise UsageError(f"{file}: key data.folder is {data['folder']!r}, and there is no folder {folder}; name one.")
    data_set = register(folder)
    shipped = [_shipped_task(name) for name in tasks()]
    alike = next((task for task in shipped if task.problem == content.get("problem")), shipped[0])
    defaults: dict[str, Any] = {
        "version": 1,
        "description": content.get("title", "its title"),
        "metrics": [metric.model_dump() for metric in alike.metrics],
        "licence": data_set.licence,
        "citation": data_set.citation,
        "published": None,
    }
    own = {**defaults, **content, "data": {"name": data_set.name, "split": data["split"]}}
    task = validated(Task, own, file, error=UsageError)
    if task.name in tasks():
        raise UsageError(f"{file}: key name is {task.name!r}, a task of urzoo's; give it another name.")
    if task.data.split not in data_set.splits:
        raise UsageError(f"{file}: key data.split: {unknown('split', task.data.split, data_set.splits)}")
    names, expected = ([metric.name for metric in of.metrics] for of in (task, alike))
    if sorted(names) != sorted(expected):
        raise UsageError(
            f"{file}: key metrics names {', '.join(names)}; expected those of problem {task.problem}: "
            f"{', '.join(expected)}. Leave metrics out to take them as they are."
        )
    if missing := _COLUMNS[task.problem] - {column.kind for column in data_set.columns.values()}:
        raise UsageError(
            f"{file}: problem {task.problem} needs a column of kind {sorted(missing)[0]} in {data['folder']}."
        )
    if task.problem.startswith("language-modelling") and data_set.splits[task.data.split].order_digest is None:
        raise DataError(
            f"{folder / 'dataset.yaml'}: split {task.data.split} has no order_digest, and figures of a text depend on "
            f"the order; urzoo data digest {folder} adds it."
        )
    # Of the data what their digest leaves out: the order of a text, and what classes are called, by which a model's
    # scores are put in order.
    columns, order = data_set.model_dump(mode="json")["columns"], data_set.splits[task.data.split].order_digest
    version = content_sha256([task.model_dump(mode="json", include=_DECIDING), columns, order])
    return task.model_copy(update={"version": 1 + int(version[:8], 16)})


_DECIDING = {"version", "problem", "requires", "time_scale", "context", "dynamic_evaluation"}


_COLUMNS: dict[ProblemName, set[str]] = {
    "image-classification": {"image", "label"},
    "text-classification": {"text", "label"},
    "series-classification": {"sequence", "label"},
    "language-modelling-stream": {"text"},
    "language-modelling-pages": {"text"},
    "copy": {"sequence"},
    "adding": {"sequence"},
}


def neural_cache_size(config: dict[str, Any]) -> int:
    """How many tokens the neural cache of a checkpoint looks back on by its configuration; 0 without settings."""
    size = config.get("neural_cache_size", 0) if config.get("model_type") == "urlstm" else 0
    return size if isinstance(size, int) else 0
