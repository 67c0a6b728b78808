"""Weights to begin with: those of another checkpoint, such as a language model of the same kind of texts."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from urzoo import zoo
from urzoo.errors import RecipeError, UsageError
from urzoo.training.text.tokenizer import tokenizer_sha256
from urzoo.zoo.schema import CheckpointInfo, InitialCheckpoint, TrainingData

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

# The parts that a language model and a classifier have in common.
_SHARED = ("model.embed_tokens.", "model.layers.", "model.norm.")


@dataclass(frozen=True)
class Initial:
    """The checkpoint that training begins with; its files have been found complete and unchanged."""

    info: CheckpointInfo

    def record(self) -> InitialCheckpoint:
        """What the new checkpoint says of it."""
        return recorded(self.info)

    def data(self) -> tuple[TrainingData, ...]:
        """What it has learnt from."""
        training = self.info.training
        return () if training is None else (training.data, *training.additional_data)

    @torch.no_grad()
    def write_into(self, model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerFast") -> None:
        """Copy the embedding and the recurrent layers into `model`, and its head if it is of the same kind.

        A one-directional checkpoint gives a bidirectional model the weights of its forward direction.

        Raises:
            RecipeError: The tokenizers differ, a tensor has another size, or the model lacks one of the layers.
        """
        folder = self.info.folder
        if tokenizer_sha256(zoo.load_tokenizer(folder)) != tokenizer_sha256(tokenizer):
            raise RecipeError(
                f"initialise_from is {self.info.name!r}, whose tokenizer is not that of the recipe's section tokenizer."
            )
        own = dict(model.named_parameters())
        source = zoo.load(folder)
        # A model of the same kind takes everything, another what the two have in common.
        parts = ("",) if type(source) is type(model) else _SHARED
        given = {name: value for name, value in source.named_parameters() if name.startswith(parts)}
        for name, value in given.items():
            if name not in own:
                raise RecipeError(
                    f"initialise_from is {self.info.name!r}, which has {name}; this model has no such part."
                )
            if own[name].shape != value.shape:
                raise RecipeError(
                    f"initialise_from is {self.info.name!r}, whose {name} has the shape {tuple(value.shape)}; "
                    f"this recipe's has {tuple(own[name].shape)}."
                )
        if type(source) is type(model) and (drawn := sorted(own.keys() - given.keys())):
            raise RecipeError(f"initialise_from is {self.info.name!r}, which has no {drawn[0]}, as this model has.")
        for name, value in given.items():
            own[name].copy_(value)


def recorded(info: CheckpointInfo) -> InitialCheckpoint:
    """What training.json says of an earlier checkpoint."""
    training = info.training
    return InitialCheckpoint(
        name=info.name,
        task=info.task,
        weights_sha256=info.weights_sha256,
        recipe_sha256=None if training is None else training.recipe_sha256,
    )


def find_initial(name: str, runs: Path) -> Initial:
    """The checkpoint of that name to begin with: one that was trained under `runs`, or else a shipped one.

    Raises:
        RecipeError: There is none of that name.
        CheckpointError: A file of it is missing or damaged.
    """
    return Initial(find_checkpoint(name, runs, key="initialise_from"))


def find_checkpoint(name: str, runs: Path, *, key: str) -> CheckpointInfo:
    """The checkpoint that the `key` of a recipe names: one that was trained under `runs`, or else a shipped one.

    Raises:
        RecipeError: There is none of that name.
        CheckpointError: A file of it is missing or damaged.
    """
    trained = runs / name / "checkpoint"
    try:
        return zoo.info(trained if trained.is_dir() else name)
    except UsageError as failure:
        raise RecipeError(
            f"{key} is {name!r}, but there is neither {trained} nor a shipped checkpoint of that name. "
            "Train its recipe first, with the same --runs."
        ) from failure
