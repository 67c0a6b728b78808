"""Whether the units of a classification head still answer.

The hidden layer of a head is one of ReLU units. A unit that answers to no row gets no gradient; when all have died so,
no gradient reaches the layers below, and training goes on for hours at chance.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import takewhile
from typing import Any

from accelerate import Accelerator
from torch import Tensor, nn

from urzoo.errors import UrzooError
from urzoo.models.classification_urlstm import ClassificationHead
from urzoo.training.log import LogLine, TrainingLine


class DeadHeadError(UrzooError):
    """No unit of a head answers to any row any more: the run learns nothing and has ended."""


# Steps over which each logged step found no unit alive, after which a run is ended.
DEAD_STEPS = 100


class HeadWatch:
    """Looks at the hidden units of a model's head in a step.

    Args:
        model: Any; where it has no such head there is nothing to see.
    """

    def __init__(self, model: nn.Module) -> None:
        heads = (module.dense for module in model.modules() if isinstance(module, ClassificationHead))
        self._layer = next(heads, None)
        self._alive: Tensor | None = None

    def watching(self) -> AbstractContextManager[Any]:
        """Passes in this block are seen; the last one counts."""
        return nullcontext() if self._layer is None else self._layer.register_forward_hook(self._look)

    def live_share(self, accelerator: Accelerator) -> float | None:
        """The share of the units that answered to some row of some process; None where there is no such head."""
        if self._alive is None:
            return None
        everywhere: Any = accelerator.gather(self._alive[None])
        return float(everywhere.any(0).double().mean())

    def _look(self, *given: Any) -> None:
        self._alive = (given[-1].detach() > 0).any(0)


def refuse_dead_head(lines: Sequence[LogLine]) -> None:
    """End a run whose log shows no live unit over `DEAD_STEPS` steps.

    Raises:
        DeadHeadError: It does.
    """
    latest_first = (line for line in reversed(lines) if isinstance(line, TrainingLine))
    dead = [line.step for line in takewhile(lambda line: line.live_head_share == 0, latest_first)]
    if dead and dead[0] - dead[-1] >= DEAD_STEPS:
        raise DeadHeadError(
            f"no unit of the head has answered to any row from step {dead[-1]} to {dead[0]}: its ReLU "
            "units have died, and the layers below learn nothing. Lower optimiser.learning_rate, raise "
            "schedule.warmup_fraction, or set model.head_hidden_size to 0; then pass --restart."
        )
