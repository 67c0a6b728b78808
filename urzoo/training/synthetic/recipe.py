"""Recipes of the synthetic problems: as `urzoo.training.recipe`, with a stream of drawn sequences for a data set.

No sequence is seen twice, so that there are no epochs, and nothing to overfit: the last weights are kept, unseen.
"""

import json
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from urzoo.data.schema import load_data_set
from urzoo.errors import RecipeError
from urzoo.recurrence.gates import Gating
from urzoo.schema import Line, Name, Strict, content_sha256, describe, read_yaml
from urzoo.training.sections import Count, OptimiserRecipe, Positive, ScheduleRecipe, Seed

ARCHITECTURES = {"copy": "URLSTMForCausalLM", "adding": "URLSTMForSequenceClassification"}


class StreamModelRecipe(Strict):
    """The fields of `URLSTMConfig` that a recipe decides; inputs and outputs follow from the problem."""

    cell: Literal["lstm", "gru"]
    gate: Line
    tie_input_gate: bool
    train_gate_bias: bool
    refine_offset: bool
    max_time: Positive | None
    hidden_size: Positive
    num_layers: Positive
    head_hidden_size: Count


class StreamRecipe(Strict):
    """What is drawn. `length` is in steps; `validation_sequences` are drawn once, apart from those of training."""

    length: Annotated[int, Field(ge=21)]
    validation_sequences: Positive


class StreamRunRecipe(Strict):
    """Length, precision and randomness."""

    batch_size: Positive
    steps: Positive
    precision: Literal["fp32", "bf16"]
    seed: Seed


class StreamCadenceRecipe(Strict):
    """How often the run logs, saves the state it can be resumed from, and scores the validation sequences."""

    log_every_steps: Positive
    save_every_steps: Positive
    validate_every_steps: Positive


class SyntheticRecipe(Strict):
    """One training run on a synthetic problem, complete in itself; `name` is that of the checkpoint it makes."""

    name: Name
    task: Literal["copy", "adding"]
    licence: Line
    architecture: Literal["URLSTMForCausalLM", "URLSTMForSequenceClassification"]
    model: StreamModelRecipe
    stream: StreamRecipe
    optimiser: OptimiserRecipe
    schedule: ScheduleRecipe
    run: StreamRunRecipe
    cadence: StreamCadenceRecipe

    @model_validator(mode="after")
    def _parts_agree(self) -> Self:
        # Raises with near matches for a gating that does not exist, or that the cell does not have.
        self.gating()
        if self.architecture != ARCHITECTURES[self.task]:
            raise ValueError(f"architecture must be {ARCHITECTURES[self.task]} for the task {self.task}")
        if self.task == "copy" and self.model.head_hidden_size:
            raise ValueError("model.head_hidden_size must be 0 for the task copy: its output is one linear map")
        return self

    def gating(self) -> Gating:
        """What the cell computes."""
        return Gating(self.model.gate, self.model.cell, self.model.tie_input_gate, self.model.refine_offset)

    @property
    def sha256(self) -> str:
        """The digest of the parsed content, keys sorted."""
        return content_sha256(self.model_dump(mode="json"))

    def with_seed(self, seed: int) -> "SyntheticRecipe":
        """The same run with another seed, under a name of its own."""
        return self.model_copy(
            update={"name": f"{self.name}-seed{seed}", "run": self.run.model_copy(update={"seed": seed})}
        )

    def with_steps(self, steps: int) -> "SyntheticRecipe":
        """The same run with another number of steps."""
        return self.model_copy(update={"run": self.run.model_copy(update={"steps": steps})})


def is_synthetic(path: Path | str) -> bool:
    """Whether the recipe at `path` is for a synthetic problem.

    Raises:
        RecipeError: The file cannot be read.
    """
    content = read_yaml(Path(path), error=RecipeError)
    return isinstance(content, dict) and content.get("task") in ARCHITECTURES


def load_synthetic_recipe(path: Path | str) -> SyntheticRecipe:
    """Read and check the recipe at `path`.

    Raises:
        RecipeError: The file cannot be read, a key is unknown, missing or impossible, or the length is not the task's.
    """
    content: Any = read_yaml(Path(path), error=RecipeError)
    try:
        recipe = SyntheticRecipe.model_validate_json(json.dumps(content, allow_nan=False))
    except (TypeError, ValueError) as failure:
        if isinstance(failure, ValidationError):
            raise RecipeError(f"{path}: {describe(failure)}") from failure
        raise RecipeError(f"{path} holds a value that is no number, text, list or switch: {failure}.") from failure
    generator = load_data_set(recipe.task).generator
    assert generator is not None
    if recipe.stream.length != generator.length:
        raise RecipeError(
            f"{path}: stream.length is {recipe.stream.length}, but task {recipe.task} has {generator.length} steps."
        )
    return recipe
