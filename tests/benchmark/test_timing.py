import time

import pytest
import torch

from urzoo.benchmark.timing import interleave, median_ratio, spread

CPU = torch.device("cpu")


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
