"""Recipes: everything that decides what a training run computes, in one YAML file without defaults.

Every key is written in every recipe, so that one can be read alone and two can be compared line by line; a key
that is misspelt, missing or impossible is refused before any data are read. Two recipes are the same run when
their parsed content is: comments and layout do not enter `Recipe.sha256`.
"""

import json
import types
from pathlib import Path
from typing import Annotated, Any, Literal, Self, Union, get_args, get_origin

from pydantic import BaseModel, Field, ValidationError, model_validator

from urzoo.errors import RecipeError, unknown
from urzoo.recurrence.gates import Gating
from urzoo.schema import Line, Name, Strict, content_sha256, describe, read_yaml

Positive = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Dropout = Annotated[float, Field(ge=0, lt=1)]
PositiveNumber = Annotated[float, Field(gt=0)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


class ModelRecipe(Strict):
    """The fields of `URLSTMConfig` that a recipe of images decides; the classes come from the data set."""

    cell: Literal["lstm", "gru"]
    gate: Line
    tie_input_gate: bool
    train_gate_bias: bool
    refine_offset: bool
    max_time: Positive | None
    input_size: Positive
    hidden_size: Positive
    num_layers: Positive
    bidirectional: bool
    layer_dropout: Dropout
    weight_dropout: Dropout
    residual: bool
    layer_norm: bool
    head_hidden_size: Count
    head_dropout: Dropout


class ProcessorRecipe(Strict):
    """How images become sequences: one pixel a step, in raster order or in one fixed permutation.

    Pixels are divided by 255 before `image_mean` is subtracted and `image_std` divided by, one number per channel.
    """

    height: Positive
    width: Positive
    do_grayscale: bool
    image_mean: Annotated[list[float], Field(min_length=1, max_length=3)]
    image_std: Annotated[list[PositiveNumber], Field(min_length=1, max_length=3)]
    permutation_seed: Seed | None


class DataRecipe(Strict):
    """The training split, and how many of its rows are held out for validation (a stratified draw by the seed)."""

    name: Name
    split: Name
    validation_rows: Positive
    validation_seed: Seed


class AugmentationRecipe(Strict):
    """Changes drawn anew for each image in each epoch: shifts of at most so many pixels each way, and mirroring."""

    shift_pixels: Count
    flip_horizontal: bool


class OptimiserRecipe(Strict):
    """AdamW. Weight decay acts on weight matrices alone, never on biases or gate biases."""

    learning_rate: PositiveNumber
    weight_decay: Annotated[float, Field(ge=0)]
    beta1: Annotated[float, Field(ge=0, lt=1)]
    beta2: Annotated[float, Field(ge=0, lt=1)]
    epsilon: PositiveNumber
    gradient_norm_clip: PositiveNumber


class ScheduleRecipe(Strict):
    """The learning rate over the run; fractions of all steps, and of the peak learning rate."""

    kind: Literal["one-cycle", "warmup-cosine"]
    warmup_fraction: Annotated[float, Field(ge=0, lt=1)]
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
    weight_average_decay: Annotated[float, Field(gt=0, lt=1)] | None


class CadenceRecipe(Strict):
    """How often the run logs, saves the state it can be resumed from, and looks at the validation rows."""

    log_every_steps: Positive
    save_every_steps: Positive
    validate_every_epochs: Positive


class SelectionRecipe(Strict):
    """Which weights the checkpoint gets: the last, or the best of the validations by `metric`."""

    checkpoint: Literal["best", "last"]
    metric: Literal["accuracy", "cross_entropy"]


class Recipe(Strict):
    """One training run, complete in itself; `name` is that of the checkpoint it makes."""

    name: Name
    task: Name
    licence: Line
    architecture: Literal["URLSTMForImageClassification"]
    model: ModelRecipe
    processor: ProcessorRecipe
    data: DataRecipe
    augmentation: AugmentationRecipe
    optimiser: OptimiserRecipe
    schedule: ScheduleRecipe
    run: RunRecipe
    cadence: CadenceRecipe
    selection: SelectionRecipe

    @model_validator(mode="after")
    def _parts_agree(self) -> Self:
        # Raises with near matches for a gating that does not exist, or that the cell does not have.
        Gating(self.model.gate, self.model.cell, self.model.tie_input_gate, self.model.refine_offset)
        channels = 1 if self.processor.do_grayscale else 3
        if self.model.input_size != channels:
            raise ValueError(f"model.input_size must be {channels}, one input per channel of a pixel")
        for key in ("image_mean", "image_std"):
            values = getattr(self.processor, key)
            if len(values) != channels:
                raise ValueError(f"processor.{key} has {len(values)} numbers, expected {channels}, one per channel")
        return self

    @property
    def sha256(self) -> str:
        """The digest of the parsed content, keys sorted: two files that differ in comments alone have one digest."""
        return content_sha256(self.model_dump(mode="json"))


def load_recipe(path: Path | str) -> Recipe:
    """Read and check the recipe at `path`.

    Raises:
        RecipeError: The file cannot be read, or a key is unknown (near matches are named), missing or impossible.
    """
    path = Path(path)
    content = read_yaml(path, error=RecipeError)
    if not isinstance(content, dict):
        raise RecipeError(f"{path} holds no keys; expected a recipe: {', '.join(Recipe.model_fields)}.")
    try:
        # Through JSON, so that YAML's dates and other extras are refused as in every other file of the project.
        text = json.dumps(content, allow_nan=False)
    except (TypeError, ValueError) as failure:
        raise RecipeError(f"{path} holds a value that is no number, text, list or switch: {failure}.") from failure
    try:
        return Recipe.model_validate_json(text)
    except ValidationError as failure:
        raise RecipeError(f"{path}: {_complaint(failure)}") from failure


def differences(old: Recipe, new: Recipe) -> list[str]:
    """The keys in which two recipes differ, each as `key: old -> new`."""
    before, after = _flat(old.model_dump(mode="json")), _flat(new.model_dump(mode="json"))
    return [
        f"{key}: {before.get(key)} -> {after.get(key)}"
        for key in sorted(before | after)
        if before.get(key) != after.get(key)
    ]


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def _complaint(failure: ValidationError) -> str:
    """The first complaint in one line; misspelt keys first, as they often explain the missing ones."""
    errors = failure.errors(include_url=False, include_context=False)
    for error in errors:
        if error["type"] == "extra_forbidden":
            *parents, key = (str(part) for part in error["loc"])
            keys = _keys_at(parents)
            message = unknown("recipe key", key, keys)
            return f"{message[:-1]} in {'.'.join(parents)}." if parents else message
    if errors[0]["type"] == "missing":
        keys = [".".join(str(part) for part in error["loc"]) for error in errors if error["type"] == "missing"]
        return (
            f"recipe key {keys[0]} is missing; a recipe writes every key ({len(keys)} missing: {', '.join(keys[:8])})."
        )
    if errors[0]["type"] == "value_error":
        return f"{errors[0]['msg'].removeprefix('Value error, ')}."
    return describe(failure)


def _keys_at(parents: list[str]) -> list[str]:
    """The keys that a recipe has below the key path `parents`."""
    model: type[BaseModel] = Recipe
    for part in parents:
        annotation = model.model_fields[part].annotation
        options = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)
        model = next(option for option in options if isinstance(option, type) and issubclass(option, BaseModel))
    return list(model.model_fields)
