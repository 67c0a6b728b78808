"""Faults planted into copies of the reference and its gatings: what the tests of the reference look at catches each.

The reference has nothing to be compared with but its equations, worked out here in scalar arithmetic, and the
derivatives of what it computes.
"""

import importlib.util
import math
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor

from tests.recurrence.conftest import Problem
from urzoo.recurrence import Gating, gates, reference

GATINGS = [Gating(), Gating("UR", "gru")]


def _sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def _by_hand(problem: Problem) -> tuple[list[list[list[float]]], list[list[list[float]]]]:
    """Outputs `[row][time][unit]` and final state `[part][row][unit]` of a UR-LSTM or UR-GRU, number by number."""
    values = {name: tensor.tolist() for name, tensor in problem.tensors.items()}
    gating, mask = problem.gating, problem.mask.tolist()
    size = len(values["gate_bias"])
    outputs, final = [], [[] for _ in problem.state]
    for row, steps in enumerate(values["inputs"]):
        hidden = values["hidden"][row]
        cell = values["cell"][row] if gating.cell == "lstm" else None
        shown = []
        for time, step in enumerate(steps):

            def pre(block: str, unit: int, recalled: list[float], step: list[float] = step) -> float:
                place = gating.blocks.index(block) * size + unit
                weights = (values["input_weight"][place], step), (values["recurrent_weight"][place], recalled)
                return values["bias"][place] + sum(
                    weight * value for left, right in weights for weight, value in zip(left, right, strict=True)
                )

            primary = "forget" if gating.cell == "lstm" else "update"
            effective = []
            for unit, offset in enumerate(values["gate_bias"]):
                f = _sigmoid(pre(primary, unit, hidden) + offset)
                r = _sigmoid(pre("refine", unit, hidden) - offset)
                effective.append(r * (1 - (1 - f) ** 2) + (1 - r) * f**2)
            if mask[row][time] and gating.cell == "lstm":
                fresh = [math.tanh(pre("candidate", unit, hidden)) for unit in range(size)]
                cell = [e * c + (1 - e) * u for e, c, u in zip(effective, cell, fresh, strict=True)]
                hidden = [_sigmoid(pre("output", unit, hidden)) * math.tanh(cell[unit]) for unit in range(size)]
            elif mask[row][time]:
                recalled = [_sigmoid(pre("reset", unit, hidden)) * hidden[unit] for unit in range(size)]
                fresh = [math.tanh(pre("candidate", unit, recalled)) for unit in range(size)]
                hidden = [(1 - e) * h + e * u for e, h, u in zip(effective, hidden, fresh, strict=True)]
            shown.append(hidden)
        outputs.append(shown)
        for part, value in zip(final, (hidden, cell), strict=False):
            part.append(value)
    return outputs, final


def _check(module: ModuleType, problem: Problem) -> None:
    """Compare a module's `scan` with the equations, and its gradients with its differences."""
    names = list(problem.tensors)

    def function(*tensors: Tensor) -> tuple[Tensor, ...]:
        named = dict(zip(names, tensors, strict=True))
        state = tuple(named[name] for name in ("hidden", "cell") if name in named)
        arguments = [named[name] for name in ("inputs", "input_weight", "recurrent_weight", "bias", "gate_bias")]
        options = {"gating": problem.gating, "mask": problem.mask, "reverse": False, "save": "activations"}
        outputs, final = module.scan(*arguments, state, **options, dtype=torch.float64)
        return outputs, *final

    outputs, *final = function(*problem.tensors.values())
    wanted, wanted_final = _by_hand(problem)
    torch.testing.assert_close(outputs, torch.tensor(wanted, dtype=torch.float64))
    torch.testing.assert_close(torch.stack(final), torch.tensor(wanted_final, dtype=torch.float64))
    assert torch.autograd.gradcheck(function, tuple(problem.tensors.values()), raise_exception=False)


def _copied(module: ModuleType, folder: Path, *changes: tuple[str, str]) -> ModuleType:
    """A copy of a module with changes, each at one place."""
    text = Path(module.__file__).read_text("utf-8")
    for right, wrong in changes:
        assert text.count(right) == 1, "the source has changed: plant the fault again"
        text = text.replace(right, wrong)
    path = folder / f"faulty_{module.__name__.rpartition('.')[2]}.py"
    path.write_text(text, "utf-8")
    specification = importlib.util.spec_from_file_location(path.stem, path)
    faulty = importlib.util.module_from_spec(specification)
    # Dataclasses look their own module up.
    sys.modules[path.stem] = faulty
    specification.loader.exec_module(faulty)
    return faulty


def _case(problem: Callable, gating: Gating) -> Problem:
    return problem(gating, batch=2, time=3, input_size=2, hidden_size=3, lengths=(2, 3))


@pytest.mark.parametrize("gating", GATINGS, ids=str)
def test_without_a_fault_everything_agrees(problem: Callable, gating: Gating):
    _check(reference, _case(problem, gating))


FAULTS = {
    "wrong sign of the refine gate": (gates, "(2.0 * refinement - 1.0)", "(1.0 - 2.0 * refinement)"),
    "wrong sign of the refine gate's bias": (
        gates,
        "refinement = refinement - gate_bias",
        "refinement = refinement + gate_bias",
    ),
    "plain forget gate": (gates, "return refine(gate, torch.sigmoid(refinement))", "return gate"),
    "stale final cell": (
        reference,
        "torch.stack(outputs, 1).to(dtype), _leave(gating, state, dtype)",
        "torch.stack(outputs, 1).to(dtype), (state[0], cell_before)[: len(state)]",
    ),
    "detached recurrence": (reference, "    hidden = state[0]\n", "    hidden = state[0].detach()\n"),
    "the padding is not skipped": (reference, "torch.where(keep[time], new, old)", "new"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_caught(fault: str, problem: Callable, tmp_path: Path):
    where, right, wrong = FAULTS[fault]
    if where is gates:
        faulty_gates = _copied(gates, tmp_path, (right, wrong))
        module = _copied(reference, tmp_path, ("from urzoo.recurrence.gates", f"from {faulty_gates.__name__}"))
    else:
        kept = ("            updated = _update(", "            cell_before = state[-1]\n            updated = _update(")
        module = _copied(reference, tmp_path, (right, wrong), kept)
    with pytest.raises(AssertionError):
        _check(module, _case(problem, Gating()))
