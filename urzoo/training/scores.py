"""Validation scores: what they are called and how they are shown, and those of a classifier."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from urzoo.processes import Processes
from urzoo.training.batches import BatchData


@dataclass(frozen=True)
class Score:
    """A score by which runs are judged.

    Attributes:
        name: As in the log and in training.json.
        label: On the axis of a figure.
        scale: What the value is multiplied by where people read it.
        higher_is_better: Whether the best value is the largest.
        logarithmic: Whether a figure shows it on a logarithmic axis.
        chance: What knowing nothing gives, in the stored unit; None where that depends on the data.
    """

    name: str
    label: str
    scale: float = 1.0
    higher_is_better: bool = False
    logarithmic: bool = False
    chance: float | None = None


ACCURACY = Score("accuracy", "accuracy (%)", scale=100.0, higher_is_better=True)
CROSS_ENTROPY = Score("cross_entropy", "cross entropy (nats)")


@torch.no_grad()
def classification_scores(model: PreTrainedModel, data: BatchData, *, rows_at_a_time: int) -> dict[str, float]:
    """Accuracy and mean cross entropy, over all rows at once in float64.

    Of several processes each answers for its share of the rows, and all have the result.

    Args:
        model: A classifier, in evaluation mode.
        data: Inputs with `labels`.
        rows_at_a_time: Rows of a batch; it changes no score.
    """
    processes = Processes.present(model.device)
    answers: dict[int, tuple[Tensor, Tensor]] = {}
    for number, start in enumerate(range(0, len(data), rows_at_a_time)):
        if number % processes.count == processes.number:
            inputs = data.batch(np.arange(start, min(start + rows_at_a_time, len(data))), epoch=0)
            labels = inputs.pop("labels")
            outputs = model(**{name: value.to(model.device) for name, value in inputs.items()})
            answers[number] = outputs.logits.cpu(), labels
    all_answers = [answer for _, answer in sorted(processes.gathered(answers).items())]
    logits = torch.cat([one for one, _ in all_answers]).double()
    labels = torch.cat([one for _, one in all_answers])
    return {
        "accuracy": (logits.argmax(-1) == labels).double().mean().item(),
        "cross_entropy": functional.cross_entropy(logits, labels).item(),
    }
