"""The machine's limit for a layer with the gates' arithmetic counted in it, which layers of few units spend much of.

A step of a layer takes products, whose time grows with their depth, and all that its units take besides. Two lengths
tell what a step takes from what a call takes, and two sizes tell the parts apart. The limit is the second part with
products as fast as the machine's, or as our own between the two sizes where these are faster. All of it is taken from
the fastest rounds: a limit that others on the machine slow down is none.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from urzoo.benchmark.contenders import CONTENDERS, Layer, Workload, absence
from urzoo.benchmark.shapes import Shape
from urzoo.benchmark.timing import Call
from urzoo.recurrence import Gating

# Far apart, so that little of what is between them has to be made up.
SIZES = (16, 128)
STEPS = (8, 40)
ROWS_PER_THREAD = 64


@dataclass(frozen=True)
class GateCost:
    """Seconds of one hidden unit of one row at one step: besides the products, and for each factor of these."""

    gates: float
    factor: float

    def least_seconds(self, shape: Shape, product_seconds: float) -> float:
        """The least time of a layer whose products alone take `product_seconds` at the machine's limit."""
        units = shape.tokens * shape.hidden_size
        depth = shape.hidden_size + (shape.input_size if shape.input_size > 1 else 0)
        return min(product_seconds, units * depth * self.factor) + units * self.gates


def gate_calls(figure: str, gating: Gating, device: torch.device) -> dict[str, Call]:
    """What is timed for the gates of "forward" or "forward_backward"; empty without the fused CPU back end."""
    contender = CONTENDERS["urzoo-cpu"]
    if device.type != "cpu" or absence(contender, gating, device):
        return {}
    calls: dict[str, Call] = {}
    for size in SIZES:
        for steps in STEPS:
            shape = Shape("gates", ROWS_PER_THREAD * torch.get_num_threads(), steps, 1, size)
            layer = Layer(contender, Workload(shape, gating, device))
            calls[_name(size, steps)] = layer.forward if figure == "forward" else layer.train
    return calls


def gate_cost(seconds: Mapping[str, Sequence[float]]) -> GateCost | None:
    """What the fastest rounds say; None if the gates were not timed."""
    if _name(SIZES[0], STEPS[0]) not in seconds:
        return None
    rows, more = ROWS_PER_THREAD * torch.get_num_threads(), STEPS[1] - STEPS[0]
    small, large = (
        (min(seconds[_name(size, STEPS[1])]) - min(seconds[_name(size, STEPS[0])])) / (more * rows * size)
        for size in SIZES
    )
    # Each is the gates' part and one that goes with the depth: the units and the one input.
    factor = max(0.0, (large - small) / (SIZES[1] - SIZES[0]))
    return GateCost(max(0.0, small - factor * (SIZES[0] + 1)), factor)


def _name(size: int, steps: int) -> str:
    return f"gates of {size} units, {steps} steps"
