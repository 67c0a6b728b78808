"""What a classifier's outputs for the validation rows are worth."""

import torch
from torch import Tensor
from torch.nn import functional
from transformers import EvalPrediction


def logits_alone(logits: Tensor | tuple[Tensor, ...], labels: Tensor) -> Tensor:  # noqa: ARG001 - the Trainer's signature
    """The scores of the classes, of all that a model returns."""
    return logits[0] if isinstance(logits, tuple) else logits


def classification_scores(prediction: EvalPrediction) -> dict[str, float]:
    """Accuracy and mean cross entropy, over all rows at once in float64."""
    logits = torch.as_tensor(prediction.predictions).double()
    labels = torch.as_tensor(prediction.label_ids)
    return {
        "accuracy": (logits.argmax(-1) == labels).double().mean().item(),
        "cross_entropy": functional.cross_entropy(logits, labels).item(),
    }
