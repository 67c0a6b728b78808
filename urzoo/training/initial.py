"""Weights to begin with: those of another checkpoint, such as a language model of the same kind of texts."""

from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from urzoo import zoo
from urzoo.errors import RecipeError, UsageError
from urzoo.training.text.tokenizer import tokenizer_sha256
from urzoo.zoo.schema import CheckpointInfo

# The parts that a language model and a classifier have in common.
_SHARED = ("model.embed_tokens.", "model.layers.", "model.norm.")


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


@torch.no_grad()
def begin_with(initial: CheckpointInfo, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    """Copy a checkpoint's embedding and recurrent layers into `model`, and its head if it is of the same kind.

    A one-directional checkpoint gives a bidirectional model the weights of its forward direction.

    Raises:
        RecipeError: The tokenizers, the gatings or the sizes differ, or the model lacks one of the layers.
    """
    named = f"initialise_from is {initial.name!r}"
    if tokenizer_sha256(zoo.load_tokenizer(initial.folder)) != tokenizer_sha256(tokenizer):
        raise RecipeError(f"{named}, whose tokenizer is not that of the recipe's section tokenizer.")
    own = dict(model.named_parameters())
    source = zoo.load(initial.folder)
    # Weights of another gating may have the same shapes and mean something else, as in a stack with residuals.
    same_kind = type(source) is type(model)
    for key in ("cell", "gate", "tie_input_gate", "refine_offset", "residual", *(["pooling"] if same_kind else [])):
        theirs, ours = (getattr(one.config, key, None) for one in (source, model))
        if theirs != ours:
            raise RecipeError(f"{named}, whose {key} is {theirs!r}; this recipe's is {ours!r}.")
    # A model of the same kind takes everything, another what the two have in common.
    parts = ("",) if same_kind else _SHARED
    given = {name: value for name, value in source.named_parameters() if name.startswith(parts)}
    for name, value in given.items():
        if name not in own:
            raise RecipeError(f"{named}, which has {name}; this model has no such part.")
        if own[name].shape != value.shape:
            raise RecipeError(
                f"{named}, whose {name} has the shape {tuple(value.shape)}; this recipe's has {tuple(own[name].shape)}."
            )
    if same_kind and (drawn := sorted(own.keys() - given.keys())):
        raise RecipeError(f"{named}, which has no {drawn[0]}, as this model has.")
    for name, value in given.items():
        own[name].copy_(value)
