"""Recipes: everything that decides what a training run computes, in one YAML file without defaults.

There is a kind of recipe for each kind of data; `kind_of` tells them apart by the architecture and the sections.
What they share stands in `urzoo.training.sections`.

Every key is written in every recipe, so that one can be read alone and two can be compared line by line; a key
that is misspelt, missing or impossible is refused before any data are read. Two recipes are the same run when
their parsed content is: comments and layout do not enter `sha256`.
"""

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from urzoo.errors import RecipeError, unknown
from urzoo.recurrence.gates import Gating
from urzoo.schema import Line, Name, Number, Strict, content_sha256
from urzoo.training.recipe_file import checked, read_content
from urzoo.training.sections import (
    CadenceRecipe,
    ClassifierRecipe,
    Count,
    DataRecipe,
    Dropout,
    LayersRecipe,
    MayBeLeftOut,
    OptimiserRecipe,
    Positive,
    PositiveNumber,
    RunRecipe,
    ScheduleRecipe,
    Seed,
    SelectionRecipe,
)
from urzoo.training.text.recipe import TokenizerRecipe


def _each_once(values: list[str]) -> list[str]:
    if len(set(values)) < len(values):
        raise ValueError(f"is {values}, expected each of them once")
    return values


Poolings = Annotated[
    list[Literal["last", "mean", "max"]], Field(min_length=1, max_length=3), AfterValidator(_each_once)
]


class BaseRecipe(Strict):
    """What every recipe has; `name` is that of the checkpoint it makes."""

    # Rows that are scored at a time; it changes no score.
    validation_batch_size: ClassVar[int]

    name: Name
    task: Name
    licence: Line
    architecture: Line
    model: LayersRecipe
    data: DataRecipe
    optimiser: OptimiserRecipe
    schedule: ScheduleRecipe
    run: RunRecipe
    cadence: CadenceRecipe
    selection: SelectionRecipe

    @model_validator(mode="after")
    def _gating_exists(self) -> Self:
        # Raises with near matches for a gating that does not exist, or that the cell does not have.
        Gating(self.model.gate, self.model.cell, self.model.tie_input_gate, self.model.refine_offset)
        return self

    @property
    def sha256(self) -> str:
        """The digest of the parsed content, keys sorted: two files that differ in comments alone have one digest."""
        return content_sha256(self.model_dump(mode="json"))

    @property
    def label_smoothing(self) -> float:
        """The share of a label's weight that is spread over all classes in the training loss."""
        return 0.0

    @property
    def adversarial_radius(self) -> float:
        """How far each text is moved, relative to the length of its embedded tokens; 0 for not at all."""
        return 0.0

    @property
    def initial_checkpoint(self) -> str | None:
        """The checkpoint whose weights training begins with; None where all are drawn."""
        return None


class ImageModelRecipe(ClassifierRecipe):
    """A classifier of pixels; `input_size` is the number of their channels.

    `pooling` is as in classifiers of sequences. It may be left out, as in recipes that are older than it; their
    digests stand, and they take the outputs at the last step.
    """

    input_size: Positive
    pooling: MayBeLeftOut[Poolings] = None


class ProcessorRecipe(Strict):
    """How images become sequences: one pixel a step, in raster order or in one fixed permutation.

    Pixels are divided by 255 before `image_mean` is subtracted and `image_std` divided by, one number per channel.
    """

    height: Positive
    width: Positive
    do_grayscale: bool
    image_mean: Annotated[list[Number], Field(min_length=1, max_length=3)]
    image_std: Annotated[list[PositiveNumber], Field(min_length=1, max_length=3)]
    permutation_seed: Seed | None


class ImageAugmentationRecipe(Strict):
    """Changes drawn anew for each image in each epoch: shifts of at most so many pixels each way, and mirroring.

    With `rotate_degrees` an image is turned about its centre by at most so many degrees either way, with `scale_change`
    its size changes by at most so large a share, with `erase_pixels` a square of so many pixels a side becomes black.
    Each may be left out, as in recipes that are older than it, whose digests stand.
    """

    shift_pixels: Count
    flip_horizontal: bool
    rotate_degrees: MayBeLeftOut[Annotated[Number, Field(gt=0, le=180)]] = None
    scale_change: MayBeLeftOut[Annotated[Number, Field(gt=0, lt=1)]] = None
    erase_pixels: MayBeLeftOut[Positive] = None


class ImageRecipe(BaseRecipe):
    """Images, read as sequences of pixels."""

    validation_batch_size: ClassVar[int] = 256

    architecture: Literal["URLSTMForImageClassification"]
    model: ImageModelRecipe
    processor: ProcessorRecipe
    augmentation: ImageAugmentationRecipe

    @model_validator(mode="after")
    def _parts_agree(self) -> Self:
        channels = 1 if self.processor.do_grayscale else 3
        if self.model.input_size != channels:
            raise ValueError(f"model.input_size must be {channels}, one input per channel of a pixel")
        for key in ("image_mean", "image_std"):
            values = getattr(self.processor, key)
            if len(values) != channels:
                raise ValueError(f"processor.{key} has {len(values)} numbers, expected {channels}, one per channel")
        side, smallest = self.augmentation.erase_pixels, min(self.processor.height, self.processor.width)
        if side is not None and side >= smallest:
            raise ValueError(f"augmentation.erase_pixels is {side}, expected less than the {smallest} pixels of a side")
        return self


class SequenceClassifierRecipe(ClassifierRecipe):
    """A classifier of sequences of any length: what is taken of the outputs at their steps, put side by side."""

    pooling: Poolings


class BatchesRecipe(Strict):
    """How rows of different lengths are put together.

    The rows of an epoch are shuffled and cut into pools of `pool_batches` batches; within a pool, rows of similar
    length share a batch, which saves padding. A pool of one batch leaves the batches to chance.
    """

    pool_batches: Positive


class SequenceRunRecipe(RunRecipe):
    """With `label_smoothing`, so much of a label's weight is spread evenly over all classes in the training loss."""

    label_smoothing: Annotated[Number, Field(ge=0, lt=1)]


class SequenceRecipe(BaseRecipe):
    """Sequences of different lengths, classified."""

    architecture: Literal["URLSTMForSequenceClassification"]
    model: SequenceClassifierRecipe
    batches: BatchesRecipe
    run: SequenceRunRecipe

    @property
    def label_smoothing(self) -> float:
        """The share of a label's weight that is spread over all classes in the training loss."""
        return self.run.label_smoothing


class SeriesModelRecipe(SequenceClassifierRecipe):
    """A classifier of series of vectors; `input_size` is the number of their channels."""

    input_size: Positive


class SeriesAugmentationRecipe(Strict):
    """Changes drawn anew for each series in each epoch.

    A series is resampled by a factor between `time_scale_min` and `time_scale_max` (uniform in its logarithm; 1.0
    for both leaves the sampling rate as it is), multiplied by the exponential of a normal number of deviation
    `amplitude_deviation`, and noise of deviation `noise_deviation` is added to each value.
    """

    time_scale_min: PositiveNumber
    time_scale_max: PositiveNumber
    amplitude_deviation: Annotated[Number, Field(ge=0)]
    noise_deviation: Annotated[Number, Field(ge=0)]

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.time_scale_min > self.time_scale_max:
            raise ValueError(
                f"augmentation.time_scale_min is {self.time_scale_min}, expected at most time_scale_max, which is "
                f"{self.time_scale_max}"
            )
        return self


class SeriesRecipe(SequenceRecipe):
    """Series of vectors. The held-out rows are scored at the data's sampling rate, and at its end at further ones.

    `further_time_scales` are steps for each step of the data, as in a task's `time_scale`; their scores are written
    into training.json and choose nothing.
    """

    validation_batch_size: ClassVar[int] = 64

    model: SeriesModelRecipe
    augmentation: SeriesAugmentationRecipe
    further_time_scales: list[PositiveNumber]


class TextModelRecipe(SequenceClassifierRecipe):
    """A classifier of token ids; the size of the vocabulary is the tokenizer's."""

    embedding_size: Positive
    embedding_dropout: Dropout
    token_dropout: Dropout


class TextBatchesRecipe(BatchesRecipe):
    """In training a longer text is cut to a stretch of `max_tokens`, whose place is drawn anew in each epoch.

    In validation and evaluation every text is read whole.
    """

    max_tokens: Positive


class TextRunRecipe(SequenceRunRecipe):
    """With `adversarial_radius` above 0, each step also learns from its texts moved so far, relative to their length.

    They are moved to where the loss grows fastest, which takes twice the time; see `urzoo.training.adversary`. The key
    may be left out, as in recipes that are older than it; their digests stand.
    """

    adversarial_radius: MayBeLeftOut[Annotated[Number, Field(ge=0, lt=1)]] = None


class TextRecipe(SequenceRecipe):
    """Texts, as the token ids of a tokenizer that the checkpoint ships.

    `initialise_from` names a checkpoint with the same tokenizer, in the folder of runs or shipped: its embedding and
    recurrent layers are what training begins with, as far as this model has them.
    """

    validation_batch_size: ClassVar[int] = 32

    model: TextModelRecipe
    tokenizer: TokenizerRecipe
    batches: TextBatchesRecipe
    run: TextRunRecipe
    initialise_from: Name | None

    @property
    def adversarial_radius(self) -> float:
        """How far each text is moved, relative to the length of its embedded tokens; 0 for not at all."""
        return self.run.adversarial_radius or 0.0

    @property
    def initial_checkpoint(self) -> str | None:
        """The checkpoint whose weights training begins with; None where all are drawn."""
        return self.initialise_from


class TeacherRecipe(Strict):
    """An earlier classifier whose answers stand in for labels on rows that have none.

    `checkpoint` is in the folder of runs or shipped, and held the same rows out as its pupil does; `split` is that of
    the rows without labels. Of these, the ones count whose class it gives at least `minimum_confidence`.
    """

    checkpoint: Name
    split: Name
    minimum_confidence: Annotated[Number, Field(ge=0, lt=1)]


class TaughtTextRecipe(TextRecipe):
    """Texts with labels, and more of them without, whose labels a teacher gives (self-training)."""

    teacher: TeacherRecipe


Recipe = ImageRecipe | SeriesRecipe | TextRecipe


def kind_of(content: dict[str, Any]) -> type[Recipe]:
    """The kind of recipe that `content` is meant to be.

    Raises:
        ValueError: Its architecture is missing or none that is trained.
    """
    architecture = content.get("architecture")
    texts = TaughtTextRecipe if "teacher" in content else TextRecipe
    kinds: dict[str, type[Recipe]] = {
        "URLSTMForImageClassification": ImageRecipe,
        "URLSTMForSequenceClassification": texts if "tokenizer" in content else SeriesRecipe,
    }
    if architecture is None:
        raise ValueError(f"recipe key architecture is missing; expected {', '.join(kinds)}.")
    if architecture not in kinds:
        raise ValueError(unknown("architecture", str(architecture), kinds))
    return kinds[architecture]


def load_recipe(path: Path | str) -> Recipe:
    """Read and check the recipe at `path`.

    Raises:
        RecipeError: The file cannot be read, or a key is unknown (near matches are named), missing or impossible.
    """
    content = read_content(path, BaseRecipe)
    try:
        kind = kind_of(content)
    except ValueError as failure:
        raise RecipeError(f"{path}: {failure}") from failure
    return checked(content, path, kind)
