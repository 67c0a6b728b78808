"""Recipes: everything that decides what a training run computes, in one YAML file without defaults.

What recipes of all kinds share stands here; the sections of a kind stand with it in `urzoo.training.kinds`. A recipe
also says what a kind has to say to a run: `check` before any data are read, and `prepare` for the job itself.

Every key is written in every recipe, so that one can be read alone and two can be compared line by line; a key
that is misspelt, missing or impossible is refused before any data are read. Two recipes are the same run when
their parsed content is: comments and layout do not enter `sha256`.
"""

from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from urzoo.data import Split, hold_out
from urzoo.errors import DataError, RecipeError
from urzoo.evaluation.task import load_task
from urzoo.recurrence.gates import Gating
from urzoo.schema import Count, Line, Name, Number, Positive, Seed, Strict, content_sha256
from urzoo.training.initial import find_checkpoint
from urzoo.training.job import Job, Parents, Sources
from urzoo.training.scores import ACCURACY, CROSS_ENTROPY, Score

Fraction = Annotated[Number, Field(ge=0, le=1)]
Dropout = Annotated[Number, Field(ge=0, lt=1)]
PositiveNumber = Annotated[Number, Field(gt=0)]
AverageDecay = Annotated[Number, Field(gt=0, lt=1)] | None


def _not_null(value: object) -> object:
    if value is None:
        raise ValueError("is null, expected a value; or leave the key out")
    return value


def _each_once(values: list[str]) -> list[str]:
    if len(set(values)) < len(values):
        raise ValueError(f"is {values}, expected each of them once")
    return values


_Value = TypeVar("_Value")
# A key that older recipes lack. Left out it is None and no part of the digest, so that such a recipe's digest stands.
MayBeLeftOut = Annotated[_Value | None, Field(exclude_if=lambda value: value is None), BeforeValidator(_not_null)]
Poolings = Annotated[
    list[Literal["last", "mean", "max"]], Field(min_length=1, max_length=3), AfterValidator(_each_once)
]


class CellRecipe(Strict):
    """The fields of `URLSTMConfig` that describe the recurrent layers, whatever stands before and after them."""

    cell: Literal["lstm", "gru"]
    gate: Line
    tie_input_gate: bool
    train_gate_bias: bool
    refine_offset: bool
    max_time: Positive | None
    hidden_size: Positive
    num_layers: Positive


class ClassifierRecipe(CellRecipe):
    """The layers and a classification head; the classes come from the data set."""

    bidirectional: bool
    layer_dropout: Dropout
    weight_dropout: Dropout
    residual: bool
    layer_norm: bool
    head_hidden_size: Count
    head_dropout: Dropout


class OptimiserRecipe(Strict):
    """AdamW. Weight decay acts on weight matrices alone, never on biases or gate biases."""

    learning_rate: PositiveNumber
    weight_decay: Annotated[Number, Field(ge=0)]
    beta1: Annotated[Number, Field(ge=0, lt=1)]
    beta2: Annotated[Number, Field(ge=0, lt=1)]
    epsilon: PositiveNumber
    gradient_norm_clip: PositiveNumber


class ScheduleRecipe(Strict):
    """The learning rate over the run; fractions of all steps, and of the peak learning rate."""

    kind: Literal["one-cycle", "warmup-cosine"]
    warmup_fraction: Annotated[Number, Field(ge=0, lt=1)]
    initial_fraction: Fraction
    final_fraction: Fraction


class RunRecipe(Strict):
    """Precision and randomness; `batch_size` is that of all processes together."""

    batch_size: Positive
    precision: Literal["fp32", "bf16"]
    seed: Seed


class CadenceRecipe(Strict):
    """How often the run logs, and saves the state it can be resumed from."""

    log_every_steps: Positive
    save_every_steps: Positive


class BaseRecipe(Strict):
    """What every recipe has; `name` is that of the checkpoint it makes."""

    name: Name
    task: Name
    licence: Line
    architecture: Line
    model: CellRecipe
    optimiser: OptimiserRecipe
    schedule: ScheduleRecipe
    run: RunRecipe
    cadence: CadenceRecipe

    @model_validator(mode="after")
    def _gating_exists(self) -> Self:
        # Raises with near matches for a gating that does not exist, or that the cell does not have.
        self.gating()
        return self

    def gating(self) -> Gating:
        """What the cell computes."""
        return Gating(self.model.gate, self.model.cell, self.model.tie_input_gate, self.model.refine_offset)

    @property
    def sha256(self) -> str:
        """The digest of the parsed content, keys sorted: two files that differ in comments alone have one digest."""
        return content_sha256(self.model_dump(mode="json"))

    @property
    def score(self) -> Score:
        """The validation score that is shown and drawn."""
        raise NotImplementedError

    @property
    def epochs(self) -> int:
        """Passes over the rows; 1 for a stream, which is as long as the run."""
        return 1

    def validate_every(self, *, steps_per_epoch: int) -> int:
        """Steps from one validation to the next."""
        raise NotImplementedError

    def run_option(self, key: Literal["weight_average_decay", "label_smoothing", "adversarial_radius"]) -> float | None:
        """A key of the section `run` that not every kind has; None where it is absent or left out."""
        value: float | None = getattr(self.run, key, None)
        return value

    @property
    def selected_by(self) -> Score | None:
        """The validation score whose best weights the checkpoint gets; None where it gets the last."""
        return None

    @property
    def initial_checkpoint(self) -> str | None:
        """The checkpoint whose weights training begins with; None where all are drawn."""
        name: str | None = getattr(self, "initialise_from", None)
        return name

    def splits(self) -> set[tuple[str, str]]:
        """The data sets and splits that it learns from; none where its data are drawn."""
        return set()

    def parents(self, runs: Path) -> Parents:
        """The earlier checkpoints that this one comes from: trained under `runs`, or else shipped.

        Raises:
            RecipeError: There is none of that name, or it is not one that this recipe can come from.
            CheckpointError: A file of it is missing or damaged.
        """
        name = self.initial_checkpoint
        return Parents() if name is None else Parents(find_checkpoint(name, runs, key="initialise_from"))

    def check(self) -> None:
        """Refuse a recipe that does not fit its task, or that would learn from what its task is scored on.

        Raises:
            RecipeError: The message names the key.
        """
        raise NotImplementedError

    def prepare(self, sources: Sources) -> Job:
        """The model, the data in its form, and what the checkpoint says of them.

        Raises:
            UsageError: `sources.data` is not what the recipe reads.
            RecipeError: An earlier checkpoint does not fit.
            DataError: The data cannot be had, or are too few.
        """
        raise NotImplementedError


# Rows of a data set: images, series, texts.


class DataRecipe(Strict):
    """The training split, and how many of its rows are held out for validation (a stratified draw by the seed)."""

    name: Name
    split: Name
    validation_rows: Positive
    validation_seed: Seed


class RowsRunRecipe(RunRecipe):
    """The rows are read `epochs` times.

    `weight_average_decay` keeps an exponential moving average of the weights, which is then what is validated and
    shipped.
    """

    epochs: Positive
    weight_average_decay: AverageDecay


class RowsCadenceRecipe(CadenceRecipe):
    """How often the run looks at the validation rows too."""

    validate_every_epochs: Positive


class SelectionRecipe(Strict):
    """Which weights the checkpoint gets: the last, or the best of the validations by `metric`."""

    checkpoint: Literal["best", "last"]
    metric: Literal["accuracy", "cross_entropy"]


class RowsRecipe(BaseRecipe):
    """A classifier of the rows of a data set."""

    # That of its tasks; and how many rows are scored at a time, which changes no score.
    problem: ClassVar[str]
    validation_batch_size: ClassVar[int]

    model: ClassifierRecipe
    data: DataRecipe
    run: RowsRunRecipe
    cadence: RowsCadenceRecipe
    selection: SelectionRecipe

    @property
    def score(self) -> Score:
        """The accuracy."""
        return ACCURACY

    @property
    def epochs(self) -> int:
        """Passes over the rows."""
        return self.run.epochs

    def validate_every(self, *, steps_per_epoch: int) -> int:
        """Steps from one validation to the next."""
        return self.cadence.validate_every_epochs * steps_per_epoch

    @property
    def selected_by(self) -> Score | None:
        """The validation score whose best weights the checkpoint gets; None where it gets the last."""
        if self.selection.checkpoint == "last":
            return None
        return ACCURACY if self.selection.metric == ACCURACY.name else CROSS_ENTROPY

    def splits(self) -> set[tuple[str, str]]:
        """The training split."""
        return {(self.data.name, self.data.split)}

    def check(self) -> None:
        """Refuse a task of another problem or data set, and to learn from the split that it is scored on."""
        task = load_task(self.task)
        if task.problem != self.problem:
            raise RecipeError(f"task is {task.name!r}, which is {task.problem}; expected one of {self.problem}.")
        if self.data.name != task.data.name:
            raise RecipeError(f"data.name is {self.data.name!r}, but task {task.name} is about {task.data.name!r}.")
        if self.data.split == task.data.split:
            raise RecipeError(
                f"data.split is {self.data.split!r}, which task {task.name} is scored on; name the training split."
            )

    def held_out(self, sources: Sources) -> tuple[Split, Split]:
        """The rows to learn from, and those held out of them.

        Raises:
            UsageError: `sources.data` is of another data set or split.
            DataError: The data cannot be had, are too few, or lack a label.
        """
        split, data = sources.split(self.data.name, self.data.split), self.data
        split.refuse_unlabelled("name a labelled split")
        if data.validation_rows >= split.rows:
            raise DataError(
                f"data.validation_rows is {data.validation_rows}, expected less than the {split.rows} rows of "
                f"{split.name} ({split.split})."
            )
        return hold_out(split, data.validation_rows, data.validation_seed)


class SequenceClassifierRecipe(ClassifierRecipe):
    """A classifier of sequences of any length: what is taken of the outputs at their steps, put side by side."""

    pooling: Poolings


class BatchesRecipe(Strict):
    """How rows of different lengths are put together.

    The rows of an epoch are shuffled and cut into pools of `pool_batches` batches; within a pool, rows of similar
    length share a batch, which saves padding. A pool of one batch leaves the batches to chance.
    """

    pool_batches: Positive


class SequenceRunRecipe(RowsRunRecipe):
    """With `label_smoothing`, so much of a label's weight is spread evenly over all classes in the training loss."""

    label_smoothing: Annotated[Number, Field(ge=0, lt=1)]


class SequenceRecipe(RowsRecipe):
    """Sequences of different lengths, classified."""

    architecture: Literal["URLSTMForSequenceClassification"]
    model: SequenceClassifierRecipe
    batches: BatchesRecipe
    run: SequenceRunRecipe


# Streams: a language model's text, the sequences of a synthetic problem.


class StreamRunRecipe(RunRecipe):
    """The run is counted in steps; `batch_size` is the number of streams of all processes together."""

    steps: Positive


class StreamCadenceRecipe(CadenceRecipe):
    """How often the run scores what is held out too."""

    validate_every_steps: Positive


class StreamRecipe(BaseRecipe):
    """A stream that goes on from step to step."""

    run: StreamRunRecipe
    cadence: StreamCadenceRecipe

    def validate_every(self, *, steps_per_epoch: int) -> int:  # noqa: ARG002 - of rows
        """Steps from one validation to the next."""
        return self.cadence.validate_every_steps
