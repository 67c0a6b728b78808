"""Recipes of language models: as `urzoo.training.recipe`, with streams of tokens in the place of rows.

The run is counted in steps. Each step reads the next `segment_tokens` tokens of `batch_size` streams, goes back through
them, and hands the state on to the next step.
"""

from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from urzoo.errors import RecipeError
from urzoo.evaluation.task import load_task, tasks
from urzoo.recurrence.gates import Gating
from urzoo.schema import Line, Name, Number, Strict, content_sha256, read_yaml
from urzoo.training.recipe_file import read_recipe
from urzoo.training.sections import (
    Dropout,
    MayBeLeftOut,
    OptimiserRecipe,
    Positive,
    PositiveNumber,
    ScheduleRecipe,
    Seed,
)
from urzoo.training.text.recipe import TextData, TextSource, TokenizerRecipe

ARCHITECTURE = "URLSTMForCausalLM"


class LanguageModelRecipe(Strict):
    """The fields of `URLSTMConfig` that a recipe decides; the vocabulary comes from the tokenizer.

    `head_dtype` is the type of the product with the vocabulary, whatever `run.precision` is. `adaptive_cutoffs` are
    the ids at which the clusters of an adaptive softmax begin; null for a plain one. The neural cache acts on
    validation, never in training; the checkpoint keeps its settings for who asks for it. Its keys may be left out. See
    `urzoo.models.neural_cache_urlstm`.
    """

    cell: Literal["lstm", "gru"]
    gate: Line
    tie_input_gate: bool
    train_gate_bias: bool
    refine_offset: bool
    max_time: Positive | None
    embedding_size: Positive
    hidden_size: Positive
    num_layers: Positive
    residual: bool
    layer_norm: bool
    tie_word_embeddings: bool
    head_dtype: Literal["float32", "bfloat16"]
    adaptive_cutoffs: Annotated[list[Positive], Field(min_length=1)] | None
    initializer_range: Annotated[Number, Field(gt=0)]
    token_dropout: Dropout
    embedding_dropout: Dropout
    layer_dropout: Dropout
    weight_dropout: Dropout
    head_dropout: Dropout
    neural_cache_size: MayBeLeftOut[Positive] = None
    neural_cache_weight: MayBeLeftOut[Annotated[Number, Field(gt=0, lt=1)]] = None
    neural_cache_sharpness: MayBeLeftOut[PositiveNumber] = None

    @model_validator(mode="after")
    def _neural_cache_is_whole(self) -> Self:
        parts = (self.neural_cache_size, self.neural_cache_weight, self.neural_cache_sharpness)
        if None in parts and parts != (None, None, None):
            raise ValueError("neural_cache_size, neural_cache_weight and neural_cache_sharpness go together")
        return self


class LanguageModelRunRecipe(Strict):
    """Length, precision and randomness.

    `batch_size` is the number of streams of all processes together. `weight_average_decay` keeps an exponential moving
    average of the weights, which is then what is validated and shipped. `state_reset_probability` is that of a stream
    to begin a segment with the empty state in place of the carried one: a model that never sees the empty state after
    its first step reads the beginning of a text badly. The key may be left out, as in recipes that are older than it.
    """

    batch_size: Positive
    segment_tokens: Positive
    steps: Positive
    precision: Literal["fp32", "bf16"]
    seed: Seed
    weight_average_decay: Annotated[Number, Field(gt=0, lt=1)] | None
    state_reset_probability: MayBeLeftOut[Annotated[Number, Field(ge=0, lt=1)]] = None


class LanguageModelCadenceRecipe(Strict):
    """How often the run logs, saves the state it can be resumed from, and scores the validation documents."""

    log_every_steps: Positive
    save_every_steps: Positive
    validate_every_steps: Positive


class LanguageModelSelectionRecipe(Strict):
    """Which weights the checkpoint gets: the last, or those of the validation with the lowest cross-entropy."""

    checkpoint: Literal["best", "last"]


class LMRecipe(Strict):
    """One training run of a language model; `name` is that of the checkpoint it makes.

    `task` is what the model is evaluated on; or a name of its own for a model that others are made of.
    `initialise_from` names a language model of the same shape with the same tokenizer, in the folder of runs or
    shipped, whose weights the run begins with in place of drawn ones.
    """

    name: Name
    task: Name
    licence: Line
    architecture: Literal["URLSTMForCausalLM"]
    model: LanguageModelRecipe
    tokenizer: TokenizerRecipe
    data: TextData
    optimiser: OptimiserRecipe
    schedule: ScheduleRecipe
    run: LanguageModelRunRecipe
    cadence: LanguageModelCadenceRecipe
    selection: LanguageModelSelectionRecipe
    initialise_from: Name | None

    @model_validator(mode="after")
    def _parts_agree(self) -> Self:
        # Raises with near matches for a gating that does not exist, or that the cell does not have.
        self.gating()
        cutoffs = self.model.adaptive_cutoffs or []
        if any(after <= before for before, after in pairwise(cutoffs)):
            raise ValueError(f"model.adaptive_cutoffs is {cutoffs}, expected increasing ids")
        return self

    def gating(self) -> Gating:
        """What the cell computes."""
        return Gating(self.model.gate, self.model.cell, self.model.tie_input_gate, self.model.refine_offset)

    @property
    def initial_checkpoint(self) -> str | None:
        """The checkpoint whose weights training begins with; None where all are drawn."""
        return self.initialise_from

    @property
    def sha256(self) -> str:
        """The digest of the parsed content, keys sorted."""
        return content_sha256(self.model_dump(mode="json"))


def is_language_model(path: Path | str) -> bool:
    """Whether the recipe at `path` is for a language model on text.

    Raises:
        RecipeError: The file cannot be read.
    """
    content: Any = read_yaml(Path(path), error=RecipeError)
    return isinstance(content, dict) and content.get("architecture") == ARCHITECTURE and "stream" not in content


def load_lm_recipe(path: Path | str) -> LMRecipe:
    """Read and check the recipe at `path`.

    Raises:
        RecipeError: The file cannot be read, a key is unknown, missing or impossible, or it would learn from a split
            that its task is scored on.
    """
    recipe = read_recipe(path, LMRecipe)
    scored = {(load_task(name).data.name, load_task(name).data.split) for name in tasks()}
    sources: list[tuple[str, TextSource]] = [("data.train", source) for source in recipe.data.train]
    if recipe.data.validation is not None:
        sources.append(("data.validation", recipe.data.validation))
    if recipe.tokenizer.kind != "checkpoint":
        sources += [("tokenizer.texts", source) for source in recipe.tokenizer.texts]
    for key, source in sources:
        # WikiText-2 and WikiText-103 have one and the same test text.
        if (source.name, source.split) in scored or source.split == "test":
            raise RecipeError(f"{path}: {key} names {source.name} ({source.split}), which figures are reported on.")
    return recipe
