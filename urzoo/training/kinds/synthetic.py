"""Training on the synthetic problems copy and adding, whose sequences are drawn as they are needed.

A batch is a function of the seed and the step alone. No sequence is seen twice, so that there are no epochs, and
nothing to overfit: the last weights are kept, whatever their scores. The stream of training, the validation sequences
and the test split of `urzoo.data` are drawn from different seeds.
"""

from collections.abc import Iterator
from functools import partial
from typing import Annotated, Any, Literal, Self

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from urzoo.data.generate import COPIED, SYMBOLS, adding_sequences, copy_sequences, sums
from urzoo.data.schema import load_data_set
from urzoo.errors import RecipeError
from urzoo.models import URLSTMConfig, URLSTMForCausalLM, URLSTMForSequenceClassification
from urzoo.schema import Count, Positive, Strict, content_sha256
from urzoo.training.batches import Batch, Rows, StreamData
from urzoo.training.job import Job, Sources
from urzoo.training.recipe import CellRecipe, StreamRecipe
from urzoo.training.scores import Score
from urzoo.zoo.schema import TrainingData

_TRAINING, _VALIDATION = 0, 1
_SCORED_AT_ONCE = 100
# What the sequences of a task are read with, and judged by.
_ARCHITECTURES = {"copy": "URLSTMForCausalLM", "adding": "URLSTMForSequenceClassification"}
SCORES = {
    "copy": Score("accuracy", "symbols recalled (%)", scale=100.0, higher_is_better=True, chance=1 / 8),
    "adding": Score("mean_squared_error", "mean squared error", logarithmic=True, chance=1 / 6),
}


class SyntheticModelRecipe(CellRecipe):
    """Inputs and outputs follow from the problem."""

    head_hidden_size: Count


class DrawnRecipe(Strict):
    """What is drawn. `length` is in steps; `validation_sequences` are drawn once, apart from those of training."""

    length: Annotated[int, Field(ge=21)]
    validation_sequences: Positive


class SyntheticRecipe(StreamRecipe):
    """One training run on a synthetic problem."""

    task: Literal["copy", "adding"]
    architecture: Literal["URLSTMForCausalLM", "URLSTMForSequenceClassification"]
    model: SyntheticModelRecipe
    stream: DrawnRecipe

    @model_validator(mode="after")
    def _parts_agree(self) -> Self:
        if self.architecture != (expected := _ARCHITECTURES[self.task]):
            raise ValueError(f"architecture is {self.architecture}, expected {expected} for the task {self.task}")
        if self.task == "copy" and (size := self.model.head_hidden_size):
            raise ValueError(f"model.head_hidden_size is {size}, expected 0: the output of copy is one linear map")
        return self

    @property
    def score(self) -> Score:
        """The score of the problem."""
        return SCORES[self.task]

    def check(self) -> None:
        """Refuse another length than the task's."""
        generator = load_data_set(self.task).generator
        assert generator is not None
        if self.stream.length != generator.length:
            raise RecipeError(
                f"stream.length is {self.stream.length}, but task {self.task} has {generator.length} steps."
            )

    def prepare(self, sources: Sources) -> Job:
        """The stream, which is drawn step by step, and the model."""
        sources.refuse_data("sequences that are drawn as they are needed")
        data_set = load_data_set(self.task)
        # Of what decides every sequence of the stream; the stream itself is never stored.
        decisive = {"length": self.stream.length, "seed": self.run.seed, "batch_size": self.run.batch_size}
        digest = content_sha256({"problem": self.task, **decisive})
        drawn = self.run.steps * self.run.batch_size
        return Job(
            model=build_model(self),
            training=SyntheticStream(self),
            scores=partial(scores, recipe=self),
            data=[
                TrainingData.of(data_set, "stream", digest, train=drawn, validation=self.stream.validation_sequences)
            ],
            digest=digest,
            size=f"{self.run.steps:,} steps",
            loss=lambda model, batch, _: loss(self.task, answers(self.task, model, batch["inputs"]), batch["targets"]),
        )


class SyntheticStream(StreamData):
    """The sequences of each step, drawn for all rows at once, so that the number of processes changes none."""

    def __init__(self, recipe: SyntheticRecipe) -> None:
        super().__init__(steps=recipe.run.steps, batch_size=recipe.run.batch_size, steps_per_epoch=recipe.run.steps)
        self.recipe = recipe

    def batch(self, step: int, rows: Rows) -> Batch:
        """Inputs and targets of some rows of a step."""
        random = _random(self.recipe.run.seed, _TRAINING, step)
        return {name: value[rows] for name, value in _batch(self.recipe, self.batch_size, random).items()}


def validation_batches(recipe: SyntheticRecipe) -> Iterator[Batch]:
    """The validation sequences, the same for every seed of the run."""
    left = recipe.stream.validation_sequences
    for number in range(-(-left // _SCORED_AT_ONCE)):
        yield _batch(recipe, min(_SCORED_AT_ONCE, left - number * _SCORED_AT_ONCE), _random(0, _VALIDATION, number))


def build_model(recipe: SyntheticRecipe) -> PreTrainedModel:
    """The model with weights drawn by the recipe's seed."""
    torch.manual_seed(recipe.run.seed)
    fields: dict[str, Any] = {**recipe.model.model_dump(), "head_dropout": 0.0, "use_cache": False}
    if recipe.task == "copy":
        # A linear map of the state to the scores, as in the paper. Symbols enter as so many numbers as its one-hot
        # vectors have, but spread: a wide embedding takes as long as the recurrence itself.
        symbols = SYMBOLS + 2
        config = URLSTMConfig(
            **fields, vocab_size=symbols, embedding_size=symbols, tie_word_embeddings=False, initializer_range=3.0
        )
        return URLSTMForCausalLM(config)
    config = URLSTMConfig(
        **fields,
        input_size=2,
        num_labels=1,  # type: ignore[call-arg]  # one of transformers' own fields
        problem_type="regression",
        pooling=["last"],
    )
    return URLSTMForSequenceClassification(config)


def loss(task: str, outputs: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy in nats a symbol, or the mean squared error of the sum."""
    if task == "copy":
        return functional.cross_entropy(outputs.flatten(0, 1), targets.flatten())
    return functional.mse_loss(outputs, targets)


def answers(task: str, model: nn.Module, inputs: Tensor) -> Tensor:
    """The model's answers: scores `(batch, 10, symbols)` at the last ten steps, or sums `(batch,)`; in float32."""
    if task == "copy":
        scores: Tensor = model(input_ids=inputs, logits_to_keep=COPIED, use_cache=False).logits
        return scores.float()
    numbers: Tensor = model(inputs_embeds=inputs).logits[:, 0]
    return numbers.float()


def scores(model: PreTrainedModel, recipe: SyntheticRecipe) -> dict[str, float]:
    """The task's metrics over the validation sequences; of several processes every one scores all of them."""
    parts = [
        (answers(recipe.task, model, batch["inputs"].to(model.device)).cpu(), batch["targets"])
        for batch in validation_batches(recipe)
    ]
    outputs = torch.cat([output for output, _ in parts]).double()
    targets = torch.cat([target for _, target in parts])
    if recipe.task == "adding":
        return {"mean_squared_error": float((outputs - targets.double()).square().mean())}
    right = outputs.argmax(-1) == targets
    return {"accuracy": float(right.double().mean()), "cross_entropy": float(loss(recipe.task, outputs, targets))}


def _batch(recipe: SyntheticRecipe, rows: int, random: np.random.RandomState) -> Batch:
    sequences: npt.NDArray[np.float32]
    if recipe.task == "copy":
        sequences = copy_sequences(rows, recipe.stream.length, random)
        symbols = torch.from_numpy(sequences[:, :, 0].astype(np.int64))
        return {"inputs": symbols, "targets": symbols[:, :COPIED].clone()}
    sequences = adding_sequences(rows, recipe.stream.length, random)
    return {"inputs": torch.from_numpy(sequences), "targets": torch.from_numpy(sums(sequences).astype(np.float32))}


def _random(seed: int, stream: int, number: int) -> np.random.RandomState:
    return np.random.RandomState(np.random.MT19937(np.random.SeedSequence((seed, stream, number))))
