"""Whether the units of a classification head still answer.

The hidden layer of a head is one of ReLU units. A unit that answers to no row gets no gradient; when all have died so,
no gradient reaches the layers below, and training goes on for hours at chance.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from accelerate import Accelerator
from torch import Tensor, nn

from urzoo.errors import UrzooError
from urzoo.models.classification_urlstm import ClassificationHead
from urzoo.training.log import LogLine, TrainingLine

# Steps over which each logged step found no unit alive, after which a run is ended.
DEAD_STEPS = 100


class HeadWatch:
    """Looks at the hidden units of a model's head in a step.

    Args:
        model: Any; where it has no such head there is nothing to see.
    """

    def __init__(self, model: nn.Module) -> None:
        layers = [module.dense for module in model.modules() if isinstance(module, ClassificationHead)]
        self._layer = layers[0] if layers else None
        self._alive: Tensor | None = None

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Passes in this block are seen; the last one counts."""
        if self._layer is None:
            yield
            return
        handle = self._layer.register_forward_hook(self._look)
        try:
            yield
        finally:
            handle.remove()

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
        UrzooError: It does.
    """
    training = [line for line in lines if isinstance(line, TrainingLine)]
    dead_since: int | None = None
    for line in reversed(training):
        if line.live_head_share != 0:
            break
        dead_since = line.step
    if dead_since is not None and training[-1].step - dead_since >= DEAD_STEPS:
        raise UrzooError(
            f"no unit of the head has answered to any row from step {dead_since} to {training[-1].step}: its ReLU "
            "units have died, and the layers below learn nothing. Lower optimiser.learning_rate, raise "
            "schedule.warmup_fraction, or set model.head_hidden_size to 0; then pass --restart."
        )
