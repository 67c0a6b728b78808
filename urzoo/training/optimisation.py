"""The optimiser, the learning rate over a run, and the moving average of the weights."""

import contextlib
import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from urzoo.errors import CheckpointError
from urzoo.training.recipe import OptimiserRecipe, ScheduleRecipe


def build_optimiser(recipe: OptimiserRecipe, model: nn.Module) -> torch.optim.AdamW:
    """AdamW over the trained parameters, with weight decay on matrices alone."""
    parameters = [value for value in model.parameters() if value.requires_grad]
    return torch.optim.AdamW(
        [
            {"params": [value for value in parameters if value.ndim > 1], "weight_decay": recipe.weight_decay},
            {"params": [value for value in parameters if value.ndim <= 1], "weight_decay": 0.0},
        ],
        lr=recipe.learning_rate,
        betas=(recipe.beta1, recipe.beta2),
        eps=recipe.epsilon,
        fused=True,
    )


def learning_rate_factor(schedule: ScheduleRecipe, step: int, steps: int) -> float:
    """The factor on the peak learning rate at `step`, counted from 0, of a run of `steps`.

    A function of the step alone, so that a resumed run needs no schedule state. Both kinds rise from
    `initial_fraction` to 1 over the first `warmup_fraction` of the run and fall to `final_fraction` along half a
    cosine. One-cycle rises along half a cosine too (Smith & Topin 2018, as in torch.optim.lr_scheduler.OneCycleLR,
    without its momentum cycle); warmup-cosine rises linearly.
    """
    warmup_steps = schedule.warmup_fraction * steps
    if step < warmup_steps:
        progress = step / warmup_steps
        if schedule.kind == "one-cycle":
            return _half_cosine(schedule.initial_fraction, 1.0, progress)
        return schedule.initial_fraction + (1.0 - schedule.initial_fraction) * progress
    progress = (step - warmup_steps) / max(steps - 1 - warmup_steps, 1.0)
    return _half_cosine(1.0, schedule.final_fraction, min(progress, 1.0))


def _half_cosine(start: float, end: float, progress: float) -> float:
    return end + (start - end) * (1.0 + math.cos(math.pi * progress)) / 2.0


class WeightAverage:
    """The moving average of a module's trained parameters.

    Early on the decay is `(1 + n) / (10 + n)` after n updates where that is smaller, so that the average forgets the
    initial weights quickly (as in TensorFlow's ExponentialMovingAverage with `num_updates`).
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.parameters = {name: value for name, value in module.named_parameters() if value.requires_grad}
        self.average = {name: value.detach().clone() for name, value in self.parameters.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take the present weights into the average."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        torch._foreach_lerp_(list(self.average.values()), list(self.parameters.values()), 1.0 - decay)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """The module holds the averaged weights within this block, and its own again after it, bit for bit."""
        own = {name: value.detach().clone() for name, value in self.parameters.items()}
        copy_into(self.parameters, self.average)
        try:
            yield
        finally:
            copy_into(self.parameters, own)

    def load(self, average: dict[str, Tensor], updates: int) -> None:
        """Go on from a saved average."""
        copy_into(self.average, average)
        self.updates = updates


@torch.no_grad()
def copy_into(tensors: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    """Give tensors the values of the same names.

    Raises:
        CheckpointError: A name or a shape differs.
    """
    odd = sorted(tensors.keys() ^ values.keys())
    odd += [name for name in tensors.keys() & values.keys() if tensors[name].shape != values[name].shape]
    if odd:
        raise CheckpointError(f"the saved state does not fit the model: {odd[0]} differs. Pass --restart.")
    for name, tensor in tensors.items():
        tensor.copy_(values[name])
