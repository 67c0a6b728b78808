"""The time of the gates' arithmetic, measured in place: what a step takes besides its products.

Layers of few units spend most of their time there. Two lengths tell what a step takes from what a call takes, and two
sizes tell what grows with the depth of the products from what does not.
"""

from collections.abc import Mapping, Sequence

import torch

from urzoo.benchmark.contenders import CONTENDERS, Layer, Problem, absence
from urzoo.benchmark.shapes import Shape
from urzoo.benchmark.timing import Call
from urzoo.recurrence import Gating

SIZES = (16, 32)
STEPS = (8, 40)
ROWS_PER_THREAD = 64


def gate_calls(figure: str, gating: Gating, device: torch.device) -> dict[str, Call]:
    """What is timed for the gates of "forward" or "forward_backward"; empty without the fused CPU back end."""
    contender = CONTENDERS["urzoo-cpu"]
    if device.type != "cpu" or absence(contender, gating, device):
        return {}
    calls: dict[str, Call] = {}
    for size in SIZES:
        for steps in STEPS:
            shape = Shape("gates", ROWS_PER_THREAD * torch.get_num_threads(), steps, 1, size)
            layer = Layer(contender, Problem(shape, gating, device))
            calls[_name(size, steps)] = layer.forward if figure == "forward" else layer.train
    return calls


def gate_seconds(seconds: Mapping[str, Sequence[float]]) -> list[float]:
    """In each round, the seconds for one hidden unit of one row at one step; empty if they were not timed."""
    if _name(SIZES[0], STEPS[0]) not in seconds:
        return []
    rows, more = ROWS_PER_THREAD * torch.get_num_threads(), STEPS[1] - STEPS[0]
    small, large = (
        [
            (longer - shorter) / (more * rows * size)
            for shorter, longer in zip(*(seconds[_name(size, steps)] for steps in STEPS), strict=True)
        ]
        for size in SIZES
    )
    # Each is the gates' part and one that goes with the depth: the units and the one input.
    less, most = (size + 1 for size in SIZES)
    return [max(0.0, (most * one - less * other) / (most - less)) for one, other in zip(small, large, strict=True)]


def _name(size: int, steps: int) -> str:
    return f"gates of {size} units, {steps} steps"
