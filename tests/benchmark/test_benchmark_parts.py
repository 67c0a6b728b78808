import math
import time

import pytest
import torch

from urzoo.benchmark.limit import limit_flops_per_second, product_flops, products
from urzoo.benchmark.shapes import SHAPES, shape_named
from urzoo.benchmark.timing import interleave, median_ratio, spread
from urzoo.errors import UsageError

CPU = torch.device("cpu")


def test_flops_count_the_products_of_the_bound():
    # performance.md's bound: 50,176 tokens at 484 GFLOP/s take 1 / 3693 of a thousand tokens a second at 128 units.
    assert SHAPES["h128"].forward_flops(4) == 2 * 64 * 784 * 4 * 128 * 128
    assert SHAPES["h128"].tokens / (SHAPES["h128"].forward_flops(4) / 484e9) == pytest.approx(3_693_000, rel=1e-3)


def test_an_input_wider_than_one_counts_in_the_flops_and_asks_for_its_gradient():
    shape = SHAPES["lm512"]
    assert shape.forward_flops(4) == 2 * 16 * 128 * 4 * 512 * (512 + 512)
    assert shape.training_flops(4) == 3 * shape.forward_flops(4)
    assert shape.input_gradient
    assert not SHAPES["h128"].input_gradient


def test_a_shape_can_be_written_out():
    shape = shape_named("b2t5i3h8")
    assert (shape.batch, shape.time, shape.input_size, shape.hidden_size) == (2, 5, 3, 8)


@pytest.mark.parametrize("name", ["h129", "b2t5i3", "b0t5i3h8", "", "B2T5I3H8 "])
def test_an_unknown_shape_is_refused_in_one_line(name):
    with pytest.raises(UsageError) as error:
        shape_named(name)
    assert repr(name) in str(error.value)
    assert "\n" not in str(error.value)


def test_rounds_visit_the_contenders_in_turn():
    visits = []

    def contender(name):
        def call():
            visits.append(name)
            time.sleep(0.02)

        return call

    seconds = interleave(
        {"a": contender("a"), "b": contender("b")}, budget_seconds=0.0, device=CPU, minimum_rounds=3, maximum_rounds=3
    )
    # Two calls each to warm up, then A B A B A B.
    assert visits[:4] == ["a", "a", "b", "b"]
    assert visits[4:] == ["a", "b"] * 3
    assert [len(values) for values in seconds.values()] == [3, 3]
    assert all(value >= 0.02 for values in seconds.values() for value in values)


def test_a_fast_call_is_repeated_within_a_sample():
    calls = []
    seconds = interleave(
        {"a": lambda: calls.append(1)}, budget_seconds=0.0, device=CPU, minimum_rounds=1, maximum_rounds=1
    )
    assert len(calls) > 100
    assert seconds["a"][0] < 0.001


def test_the_budget_sets_the_rounds_between_least_and_most():
    def call():
        time.sleep(0.03)

    few = interleave({"a": call}, budget_seconds=0.0, device=CPU, minimum_rounds=2)["a"]
    many = interleave({"a": call}, budget_seconds=10.0, device=CPU, minimum_rounds=2, maximum_rounds=4)["a"]
    assert len(few) == 2
    assert len(many) == 4


def test_ratios_are_taken_round_by_round():
    # The machine was ten times slower in the second round: the ratio of each round is 2 all the same.
    assert median_ratio([2.0, 20.0, 2.2], [1.0, 10.0, 1.1]) == pytest.approx(2.0)


def test_the_spread_holds_the_extremes():
    summary = spread([3.0, 1.0, 2.0])
    assert (summary.low, summary.median, summary.high) == (1.0, 2.0, 3.0)


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_every_way_to_the_limit_computes_the_same_product(dtype):
    results = [call() for call in products(dtype, CPU).values()]
    assert results
    for result in results:
        torch.testing.assert_close(result, results[0], rtol=2e-3, atol=2e-3)


def test_the_limit_is_the_better_way_of_each_round():
    seconds = {"torch.mm-fp32": [2.0, 1.0], "onednn-fp32": [1.0, 4.0], "torch.mm-bf16": [0.1, 0.1], "urzoo": [9.0, 9.0]}
    assert limit_flops_per_second(seconds, "fp32", CPU) == [product_flops(CPU)] * 2
    assert all(math.isclose(rate, product_flops(CPU) * 10) for rate in limit_flops_per_second(seconds, "bf16", CPU))
