import pytest
import torch

from urzoo.benchmark.gates import ROWS_PER_THREAD, SIZES, STEPS, gate_calls, gate_seconds
from urzoo.benchmark.gates import _name as name
from urzoo.benchmark.run import run_benchmark
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
    assert gate_seconds(seconds) == pytest.approx([gates, gates])
    assert gate_seconds({}) == []


@needs_cpu
@pytest.mark.parametrize("figure", ["forward", "forward_backward"])
def test_a_run_says_what_is_left_of_the_limit_with_gates(figure):
    report = run_benchmark(
        shapes=["b4t9i1h16"], contenders=["urzoo-cpu", "urzoo-reference"], figures=[figure], threads=1, seconds=20
    )
    own, reference = report.rows[:2]
    assert (own.share_with_gates or 0) >= (own.share_of_limit or 0) > 0
    assert reference.share_with_gates is None


def test_there_are_no_gates_of_ours_on_a_gpu():
    assert gate_calls("forward", Gating(), torch.device("cuda")) == {}
