import time

import pytest
import torch

from urzoo.benchmark import budget
from urzoo.benchmark.budget import affordable, costs
from urzoo.benchmark.contenders import CONTENDERS, Layer
from urzoo.benchmark.figures import Contest
from urzoo.benchmark.measurements import find
from urzoo.benchmark.run import run_benchmark
from urzoo.benchmark.shapes import shape_named
from urzoo.benchmark.tables import absences
from urzoo.recurrence import Gating

STEP_SECONDS = 0.2


@pytest.fixture
def slow_torch(monkeypatch):
    """torch.nn.LSTM takes 200 ms more for every step of a sequence."""
    forward = Layer.forward

    def slow(layer):
        if layer.contender.name == "torch-lstm":
            time.sleep(STEP_SECONDS * layer.workload.shape.time)
        return forward(layer)

    monkeypatch.setattr(Layer, "forward", slow)


def test_the_cheapest_are_kept_as_long_as_they_fit():
    asked = {"a": 5.0, "b": 1.0, "c": 2.0, "d": 50.0}
    assert affordable(asked, 8.0) == {"a", "b", "c"}
    assert affordable(asked, 7.9) == {"b", "c"}
    assert affordable(asked, 100.0) == set(asked)
    assert affordable(asked, -1.0) == set()


def test_a_short_sequence_tells_what_the_whole_one_takes(slow_torch):
    shape = shape_named("b1t100i1h4")
    estimated = costs(shape, ["forward"], [CONTENDERS["torch-lstm"]], Gating(), torch.device("cpu"))
    (cost,) = estimated.values()
    calls = budget._CALLS_BEFORE + budget.MINIMUM_ROUNDS
    assert 0.9 * STEP_SECONDS * 100 * calls < cost < 3 * STEP_SECONDS * 100 * calls


def test_who_takes_longer_than_its_share_is_left_out_with_a_line(slow_torch):
    begin = time.perf_counter()
    names, seconds = ["urzoo-reference", "torch-lstm", "ur-lstm-torch"], 20
    report = run_benchmark(shapes=["b1t100i1h4"], contenders=names, figures=["forward", "decode"], seconds=seconds)
    assert time.perf_counter() - begin < 3 * seconds  # of torch.nn.LSTM the least is 120 s
    slow = find(report.rows, shape="b1t100i1h4", figure="forward", contender="torch-lstm")
    assert slow.milliseconds is None
    assert slow.note == "its rounds would take longer than their share of 20 s"
    assert find(report.rows, shape="b1t100i1h4", figure="decode", contender="torch-lstm").milliseconds > 0
    other = find(report.rows, shape="b1t100i1h4", figure="forward", contender="urzoo-reference")
    assert other.milliseconds > 0
    assert other.over_torch_lstm is None
    assert f"torch-lstm: {slow.note} (b1t100i1h4 forward)" in absences(report)


def test_no_time_at_all_leaves_lines_alone():
    report = run_benchmark(shapes=["b1t2i1h4"], contenders=["urzoo-reference"], seconds=1e-9)
    assert len(report.rows) == 6
    assert all(row.milliseconds is None and row.note for row in report.rows)
    assert absences(report) == [f"urzoo-reference: {report.rows[0].note}"]


def test_memory_is_estimated_with_the_start_of_its_process(monkeypatch):
    monkeypatch.setattr(budget, "_process_seconds", lambda: 1000.0)
    shape = shape_named("b1t2i1h4")
    chosen = [CONTENDERS["urzoo-reference"]]
    estimated = costs(shape, ["memory", "forward"], chosen, Gating(), torch.device("cpu"))
    assert 1000 < estimated[Contest(shape, "memory"), "urzoo-reference"] < 1010
    assert estimated[Contest(shape, "forward"), "urzoo-reference"] < 10
