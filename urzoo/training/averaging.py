"""Exponential moving average of the weights, kept beside the weights that are trained."""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn


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
        self._write(self.average)
        try:
            yield
        finally:
            self._write(own)

    def load(self, average: dict[str, Tensor], updates: int) -> None:
        """Go on from a saved average."""
        for name, value in self.average.items():
            value.copy_(average[name])
        self.updates = updates

    @torch.no_grad()
    def _write(self, values: dict[str, Tensor]) -> None:
        for name, value in self.parameters.items():
            value.copy_(values[name])
