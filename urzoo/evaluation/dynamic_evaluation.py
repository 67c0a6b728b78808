"""Dynamic evaluation: a language model that goes on learning from a text, each part of it once that part is scored.

After every so many tokens the weights take one step down the gradient of their loss on these, and are drawn back a
little to the checkpoint's. No token is scored by weights that have seen it.

Source: Krause, Kahembwe, Murray and Renals 2018, arXiv:1709.07432. A step is Adam's without momentum: the gradient is
scaled by its own root mean square so far, where the paper measures that on the training texts.
"""

import copy
from typing import Any

import torch
from torch import Tensor

from urzoo.evaluation.task import DynamicEvaluation

# Of a gradient's norm: what is learned from one odd passage has a bound.
_LONGEST_GRADIENT = 1.0
_SQUARES_DECAY = 0.999


class Learner:
    """A copy of a model that learns what it has scored; the model itself stays as it is.

    What the configuration freezes stays as it is.

    Args:
        model: In evaluation mode, so that nothing is dropped out.
        settings: Those of the task.
    """

    @torch.inference_mode(mode=False)  # whatever the caller's: its tensors could not learn
    def __init__(self, model: Any, settings: DynamicEvaluation) -> None:
        self.settings = settings
        self.model = copy.deepcopy(model)
        self._weights = [weight for weight in self.model.parameters() if weight.requires_grad]
        self._shipped = [weight.detach().clone() for weight in self._weights]
        self.begin()

    @torch.no_grad()
    def begin(self) -> None:
        """Forget all that was learned."""
        torch._foreach_copy_(self._weights, self._shipped)
        rate = self.settings.learning_rate
        self._optimiser = torch.optim.Adam(self._weights, lr=rate, betas=(0.0, _SQUARES_DECAY), fused=True)
        self._loss: Tensor | None = None
        self.tokens_left = self.settings.segment_tokens

    def scored(self, log_probabilities: Tensor) -> bool:
        """Take what the next tokens were given, `(tokens,)`, at most `tokens_left`; whether the weights moved.

        The state that the model then carries must be cut off from its graph.
        """
        loss = -log_probabilities.sum()
        self._loss = loss if self._loss is None else self._loss + loss
        self.tokens_left -= len(log_probabilities)
        if self.tokens_left:
            return False
        self._optimiser.zero_grad()
        (self._loss / self.settings.segment_tokens).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self._weights, _LONGEST_GRADIENT)
        self._optimiser.step()
        with torch.no_grad():
            torch._foreach_lerp_(self._weights, self._shipped, self.settings.decay)
        self._loss, self.tokens_left = None, self.settings.segment_tokens
        return True
