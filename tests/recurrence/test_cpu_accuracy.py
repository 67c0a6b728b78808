"""The fused CPU back end against the float64 reference: outputs, final state and every gradient.

The last part plants faults into copies of the C++ source and shows that the comparison catches each.
"""

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from urzoo.recurrence import Gating, backends
from urzoo.recurrence.cpu import library

pytestmark = pytest.mark.skipif(bool(backends()["cpu"]), reason=backends()["cpu"])

LSTM_GATINGS = [
    *(Gating(name, tie_input_gate=tied) for name in ("--", "C-", "U-", "-R", "CR", "UR") for tied in (True, False)),
    Gating("UR", refine_offset=False),
]
SHAPES = [
    # batch, time, input_size, hidden_size
    (1, 1, 3, 17),
    (7, 63, 1, 1),
    (3, 2, 3, 17),
    (7, 63, 65, 48),
    (64, 2, 1, 100),
    (3, 63, 3, 256),
    (1, 63, 65, 100),
]


@pytest.fixture(autouse=True)
def poisoned_memory() -> Iterator[None]:
    """Memory that nobody wrote to holds NaN, so that reading it shows."""
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    yield
    torch.use_deterministic_algorithms(False)


# One draw's results: what came out, what the reference gives in the same dtype, and what it gives in float64.
Draw = tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]


def faults(draws: list[Draw]) -> list[str]:
    """What is off by more than twice what the reference is off by in the same dtype, in the mean and at worst.

    Errors are counted in roundings of the largest value, all draws taken together as one. In small problems the
    reference is off by nearly nothing by chance, so some roundings are allowed in any case: four in the mean, twelve
    at worst.
    """
    found = []
    for name in draws[0][2]:
        got, rounded, true = (torch.cat([draw[part][name].double().flatten() for draw in draws]) for part in range(3))
        rounding = torch.finfo(torch.float32).eps * true.abs().max()
        ours, theirs = (got - true) / rounding, (rounded - true) / rounding
        for kind, ours_off, theirs_off, floor in (
            ("in the mean", ours.square().mean().sqrt(), theirs.square().mean().sqrt(), 4.0),
            ("at worst", ours.abs().max(), theirs.abs().max(), 12.0),
        ):
            allowed = max(2 * float(theirs_off), floor)
            if not ours_off <= allowed:
                found.append(f"{name} is off by {ours_off:.2f} roundings {kind}, allowed {allowed:.2f}")
    return found


def compare(
    problem: Callable,
    gating: Gating,
    shape: tuple[int, int, int, int],
    *,
    save: str = "activations",
    draws: int = 1,
    **options: object,
) -> list[str]:
    batch, time, input_size, hidden_size = shape
    sizes = {"batch": batch, "time": time, "input_size": input_size, "hidden_size": hidden_size}
    results = []
    for seed in range(draws):
        exact = problem(gating, **sizes, **options, seed=seed)
        rounded = exact.to(torch.float32)
        got = rounded.results(backend="cpu", save=save)
        results.append((got, rounded.results(backend="reference"), exact.results(backend="reference")))
    return faults(results)


@pytest.mark.parametrize("gating", LSTM_GATINGS, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_it_loses_no_more_than_the_reference_to_rounding(
    shape: tuple[int, int, int, int], gating: Gating, problem: Callable
):
    # With few hidden units a gradient is a few numbers, and the error of one draw a matter of luck.
    assert not compare(problem, gating, shape, draws=8 if shape[3] < 20 else 1)


def test_it_loses_no_more_than_the_reference_over_many_steps(problem: Callable):
    assert not compare(problem, Gating("UR"), (3, 784, 1, 17))


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("pad", ["left", "right"])
@pytest.mark.parametrize("gating", [Gating("UR"), Gating("--", tie_input_gate=False)], ids=str)
def test_it_agrees_with_the_reference_over_padding_in_both_directions(
    gating: Gating, pad: str, reverse: bool, problem: Callable
):
    lengths = [9, 1, 4, 9, 7]
    assert not compare(problem, gating, (5, 9, 3, 20), lengths=lengths, pad=pad, reverse=reverse)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("time", [5, 32, 70])
def test_recomputing_agrees_as_saving_does(time: int, reverse: bool, problem: Callable):
    lengths = [time, 1, time // 2]
    options = {"lengths": lengths, "reverse": reverse, "save": "recompute"}
    assert not compare(problem, Gating("UR"), (3, time, 3, 20), **options)


@pytest.mark.parametrize("variant", library.variants())
@pytest.mark.parametrize("shape", [(2, 7, 1, 17), (9, 40, 20, 33), (2, 5, 3, 180)], ids=str)
def test_every_variant_of_the_library_agrees(shape: tuple[int, int, int, int], variant: str, problem: Callable):
    with library.using(variant) as used:
        assert used.variant == variant
        for gating in (Gating("UR"), Gating("--"), Gating("UR", tie_input_gate=False)):
            assert not compare(problem, gating, shape)


@pytest.mark.parametrize("threads", [1, 2, 3, 5])
def test_any_number_of_threads_agrees(threads: int, problem: Callable):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for shape in ((3, 9, 2, 40), (2, 20, 20, 190), (64, 9, 1, 33)):
            assert not compare(problem, Gating("UR"), shape)
    finally:
        torch.set_num_threads(before)


FAULTS = {
    "wrong sign of the refine gate": ("cells.h", "(2.0f * gates[kRefine] - 1.0f)", "(1.0f - 2.0f * gates[kRefine])"),
    "plain forget gate": ("cells.h", "if (!Refined) return forget;", "return forget;"),
    "stale final cell": ("forward.h", "load(cell + from), layout", "load_first(p.cell + to, 1), layout"),
    "detached recurrence": (
        "backward.h",
        "load(place) + sum[row][column]);\n        }\n    });",
        "load(place));}\n    });",
    ),
    "the padding is not skipped": ("layout.h", "p.mask[row * p.time + time] != 0", "true"),
    "gradient of the first chunk only": ("backward.h", "chunk.last == p.time && line == 0;", "true;"),
}


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++ to compile the fault")
@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_caught(fault: str, problem: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    name, right, wrong = FAULTS[fault]
    source = shutil.copytree(Path(library.__file__).with_name("source"), tmp_path / "source")
    text = (source / name).read_text()
    assert text.count(right) == 1, "the source has changed: plant the fault anew"
    (source / name).write_text(text.replace(right, wrong))
    target = tmp_path / "_fused_baseline.so"
    command = ["g++", "-std=c++17", "-O1", "-w", "-fPIC", "-shared", "-pthread", "-o", str(target)]
    subprocess.run([*command, *map(str, source.glob("*.cpp"))], check=True, stdout=sys.stderr)
    monkeypatch.setattr(library, "_path", lambda variant: tmp_path / f"_fused_{variant}.so")
    with library.using("baseline"):
        assert compare(problem, Gating("UR"), (3, 300, 3, 17), lengths=[300, 200, 7])
