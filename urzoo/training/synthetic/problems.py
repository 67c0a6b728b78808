"""The two problems as training sees them: batches of the stream, the model, the loss, the scores.

A batch is a function of the seed and the step alone, so that a resumed run needs no generator state. The stream
of training, the validation sequences and the test split of `urzoo.data` are drawn from different seeds.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from urzoo.data.generate import COPIED, SYMBOLS, adding_sequences, copy_sequences, sums
from urzoo.models import URLSTMConfig, URLSTMForCausalLM, URLSTMForSequenceClassification
from urzoo.training.synthetic.recipe import SyntheticRecipe

Batch = tuple[Tensor, Tensor]

_TRAINING, _VALIDATION = 0, 1
_SCORED_AT_ONCE = 100


def training_batch(recipe: SyntheticRecipe, step: int) -> Batch:
    """Inputs and targets of the training step numbered `step` from 0."""
    random = _random(recipe.run.seed, _TRAINING, step)
    return _batch(recipe, recipe.run.batch_size, random)


def validation_batches(recipe: SyntheticRecipe) -> Iterator[Batch]:
    """The validation sequences, the same for every seed of the run."""
    left = recipe.stream.validation_sequences
    for number in range(-(-left // _SCORED_AT_ONCE)):
        yield _batch(recipe, min(_SCORED_AT_ONCE, left - number * _SCORED_AT_ONCE), _random(0, _VALIDATION, number))


def build_model(recipe: SyntheticRecipe) -> PreTrainedModel:
    """The model with freshly drawn weights; set the seed before."""
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


def loss(recipe: SyntheticRecipe, outputs: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy in nats a symbol, or the mean squared error of the sum."""
    if recipe.task == "copy":
        return functional.cross_entropy(outputs.flatten(0, 1), targets.flatten())
    return functional.mse_loss(outputs, targets)


def told(recipe: SyntheticRecipe, model: PreTrainedModel, inputs: Tensor) -> Tensor:
    """What the model says: scores `(batch, 10, symbols)` at the last ten steps, or sums `(batch,)`; in float32."""
    if recipe.task == "copy":
        scores: Tensor = model(input_ids=inputs, logits_to_keep=COPIED, use_cache=False).logits
        return scores.float()
    sums_told: Tensor = model(inputs_embeds=inputs).logits[:, 0]
    return sums_told.float()


@torch.no_grad()
def scores(recipe: SyntheticRecipe, model: PreTrainedModel) -> dict[str, float]:
    """The task's metrics over the validation sequences."""
    parts = [(told(recipe, model, inputs), targets) for inputs, targets in validation_batches(recipe)]
    outputs = torch.cat([output for output, _ in parts]).double()
    targets = torch.cat([target for _, target in parts])
    if recipe.task == "adding":
        return {"mean_squared_error": float((outputs - targets.double()).square().mean())}
    right = outputs.argmax(-1) == targets
    return {"accuracy": float(right.double().mean()), "cross_entropy": float(loss(recipe, outputs, targets))}


def _batch(recipe: SyntheticRecipe, rows: int, random: np.random.RandomState) -> Batch:
    sequences: npt.NDArray[np.float32]
    if recipe.task == "copy":
        sequences = copy_sequences(rows, recipe.stream.length, random)
        symbols = torch.from_numpy(sequences[:, :, 0].astype(np.int64))
        return symbols, symbols[:, :COPIED].clone()
    sequences = adding_sequences(rows, recipe.stream.length, random)
    return torch.from_numpy(sequences), torch.from_numpy(sums(sequences).astype(np.float32))


def _random(seed: int, stream: int, number: int) -> np.random.RandomState:
    return np.random.RandomState(np.random.MT19937(np.random.SeedSequence((seed, stream, number))))
