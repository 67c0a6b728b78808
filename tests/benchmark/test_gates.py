import pytest
import torch

from urzoo.benchmark.gates import ROWS_PER_THREAD, SIZES, STEPS, GateCost, gate_calls, gate_cost
from urzoo.benchmark.gates import _name as name
from urzoo.benchmark.run import run_benchmark
from urzoo.benchmark.shapes import shape_named
from urzoo.recurrence import Gating, backends

needs_cpu = pytest.mark.skipif(bool(backends()["cpu"]), reason=backends()["cpu"])


def test_products_and_calls_are_told_from_gates():
    """Of times that are made up of known parts the gates' part comes out."""
    gates, product, call = 3e-9, 2e-10, 5e-5
    rows = ROWS_PER_THREAD * torch.get_num_threads()
    seconds = {
        name(size, steps): [call + steps * rows * size * (gates + product * (size + 1))] * 2
        for size in SIZES
        for steps in STEPS
    }
    cost = gate_cost(seconds)
    assert cost is not None
    assert (cost.gates, cost.factor) == pytest.approx((gates, product))
    assert gate_cost({}) is None


def test_a_busy_round_does_not_move_the_limit():
    quiet = {name(size, steps): [1e-4 * size * steps] for size in SIZES for steps in STEPS}
    for busy in quiet:
        noisy = {each: [*times, times[0] * (3 if each == busy else 1)] for each, times in quiet.items()}
        assert gate_cost(noisy) == gate_cost(quiet)


@pytest.mark.parametrize("machine", [1e-10, 1e-9])
@pytest.mark.parametrize("shape", ["b64t784i1h128", "b16t128i512h512"])
def test_nobody_is_faster_than_the_limit_whose_products_are_not(shape: str, machine: float):
    """A layer whose products are as fast as ours are at most, and whose gates take what ours take."""
    sizes, cost = shape_named(shape), GateCost(3e-9, 2e-10)
    depth = sizes.hidden_size + (sizes.input_size if sizes.input_size > 1 else 0)
    units = sizes.tokens * sizes.hidden_size
    least = cost.least_seconds(sizes, units * depth * machine)
    assert least == pytest.approx(units * (3e-9 + depth * min(machine, 2e-10)))
    assert least <= units * (cost.gates + depth * cost.factor)


@needs_cpu
@pytest.mark.parametrize("figure", ["forward", "forward_backward"])
def test_a_run_says_what_is_left_of_the_limit_with_gates(figure):
    report = run_benchmark(
        shapes=["b4t9i1h16"], contenders=["urzoo-cpu", "urzoo-reference"], figures=[figure], threads=1, seconds=20
    )
    own, reference = report.rows[:2]
    assert (own.share_with_gates or 0) > 0
    assert (own.share_of_limit or 0) > 0
    assert reference.share_with_gates is None


def test_there_are_no_gates_of_ours_on_a_gpu():
    assert gate_calls("forward", Gating(), torch.device("cuda")) == {}
