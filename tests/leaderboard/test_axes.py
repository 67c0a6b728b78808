import pytest

from urzoo.leaderboard.axes import linear_axis, log_axis


@pytest.mark.parametrize(
    "values", [[102_282.0], [0.0, 1.0], [11.35, 99.9], [0.35, 24.1], [5.0], [0.000442], [1.0, 1e6], [99.999, 100.0]]
)
@pytest.mark.parametrize("make", [linear_axis, log_axis])
def test_marks_are_round_few_and_different(make, values: list[float]):
    if make is log_axis and min(values) <= 0:
        pytest.skip("no logarithm")
    axis = make("x", values)
    texts = [text for _, text in axis.ticks]
    assert 1 <= len(texts) <= 10
    assert len(set(texts)) == len(texts)
    assert all(len(text.strip("-0.").replace(".", "").rstrip("kMG")) <= 6 for text in texts)
    assert all(axis.low <= value <= axis.high for value, _ in axis.ticks)
    assert all(0 <= axis.position(value) <= 1 for value in values)


def test_no_mark_stands_where_no_value_can_be():
    axis = linear_axis("Accuracy, %", [0.5, 99.9], (0.0, 100.0))
    assert axis.high > 100
    assert [value for value, _ in axis.ticks] == [0, 20, 40, 60, 80, 100]
