"""The sections that recipes of all kinds share: data, layers, optimiser, schedule, run, cadence, selection."""

from typing import Annotated, Literal, TypeVar

from pydantic import BeforeValidator, Field

from urzoo.schema import Line, Name, Number, Strict

Positive = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
Fraction = Annotated[Number, Field(ge=0, le=1)]
Dropout = Annotated[Number, Field(ge=0, lt=1)]
PositiveNumber = Annotated[Number, Field(gt=0)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


def _is_none(value: object) -> bool:
    return value is None


def _not_null(value: object) -> object:
    if value is None:
        raise ValueError("is null, expected a value; or leave the key out")
    return value


_Value = TypeVar("_Value")
# A key that older recipes lack. Left out it is None and no part of the digest, so that such a recipe's digest stands.
MayBeLeftOut = Annotated[_Value | None, Field(exclude_if=_is_none), BeforeValidator(_not_null)]


class LayersRecipe(Strict):
    """The fields of `URLSTMConfig` that describe the recurrent layers, whatever stands before and after them."""

    cell: Literal["lstm", "gru"]
    gate: Line
    tie_input_gate: bool
    train_gate_bias: bool
    refine_offset: bool
    max_time: Positive | None
    hidden_size: Positive
    num_layers: Positive
    bidirectional: bool
    layer_dropout: Dropout
    weight_dropout: Dropout
    residual: bool
    layer_norm: bool


class ClassifierRecipe(LayersRecipe):
    """The layers and a classification head; the classes come from the data set."""

    head_hidden_size: Count
    head_dropout: Dropout


class DataRecipe(Strict):
    """The training split, and how many of its rows are held out for validation (a stratified draw by the seed)."""

    name: Name
    split: Name
    validation_rows: Positive
    validation_seed: Seed


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
    """Length, precision and randomness.

    `batch_size` is that of all processes together. `weight_average_decay` keeps an exponential moving average of the
    weights, which is then what is validated and shipped.
    """

    batch_size: Positive
    epochs: Positive
    precision: Literal["fp32", "bf16"]
    seed: Seed
    weight_average_decay: Annotated[Number, Field(gt=0, lt=1)] | None


class CadenceRecipe(Strict):
    """How often the run logs, saves the state it can be resumed from, and looks at the validation rows."""

    log_every_steps: Positive
    save_every_steps: Positive
    validate_every_epochs: Positive


class SelectionRecipe(Strict):
    """Which weights the checkpoint gets: the last, or the best of the validations by `metric`."""

    checkpoint: Literal["best", "last"]
    metric: Literal["accuracy", "cross_entropy"]
