from collections.abc import Callable
from pathlib import Path

import pytest

from urzoo.evaluation.intervals import wilson
from urzoo.leaderboard.build import make_board
from urzoo.leaderboard.charts import Chart, Line, charts
from urzoo.recurrence import GATINGS

from .test_groups import put_seeds


def drawn(results: Path, checkpoints: Path) -> dict[tuple[str, str], Chart]:
    board, _ = make_board(results, results.parent, checkpoints=checkpoints)
    return {(chart.task, chart.kind): chart for chart in charts(board)}


def test_a_plot_is_drawn_where_there_are_two_to_compare(example: Path, checkpoints: Path):
    # One measured model on permuted MNIST stands beside the published ones; one curve shows nothing.
    wanted = {("", "overview"), ("smnist", "standings"), ("smnist", "learning_curves"), ("pmnist", "standings")}
    assert set(drawn(example, checkpoints)) == wanted


def test_a_model_alone_makes_no_plot(put: Callable[..., Path], results: Path, checkpoints: Path):
    put("urlstm-512-imdb", "imdb", 0.92)  # of the published figures only one that no paper vouches for
    assert not drawn(results, checkpoints)


def test_without_measured_rows_there_are_no_plots(results: Path, checkpoints: Path):
    assert not drawn(results, checkpoints)


def test_every_mark_lies_inside_the_frame(example: Path, checkpoints: Path):
    for chart in drawn(example, checkpoints).values():
        for point in chart.points:
            assert all(0 <= chart.x.position(x) <= 1 for x in (point.x, *(point.interval or ())))
            assert 0 <= point.y < len(chart.names)
        for line in chart.lines:
            assert all(0 <= chart.x.position(x) <= 1 and 0 <= chart.y.position(y) <= 1 for x, y in line.points)


def test_models_stand_from_the_best_to_the_worst_measured_filled_and_published_hollow(example: Path, checkpoints: Path):
    chart = drawn(example, checkpoints)["smnist", "standings"]
    assert chart.names[:3] == ("S4", "LSSL", "LipschitzRNN")
    assert {"someone/urgru-256", "urlstm-128", "lstm-128", "google/vit-tiny", "UR-LSTM"} <= set(chart.names)
    assert [point.x for point in chart.points] == sorted((point.x for point in chart.points), reverse=True)
    assert {point.hollow for point in chart.points if "measured" in point.title} == {False}
    assert {point.hollow for point in chart.points if "published" in point.title} == {True}
    assert not any("-64-" in point.row for point in chart.points)  # outdated


def test_the_overview_has_the_best_of_each_task_and_what_is_published(example: Path, checkpoints: Path):
    chart = drawn(example, checkpoints)["", "overview"]
    assert chart.names == ("Permuted MNIST", "Sequential MNIST")
    smnist = {point.row: point for point in chart.points if point.y == 1}
    best = smnist["smnist/someone__urgru-256"]
    assert best.x == pytest.approx(100 - 98.71)
    assert best.interval == (pytest.approx(100 - 98.89), pytest.approx(100 - 98.51))
    assert {point.hollow for row, point in smnist.items() if "published" in row} == {True}
    assert len(smnist) == 3


def test_no_error_at_all_stands_left_of_all_others_and_the_axis_says_so(
    put: Callable[..., Path], results: Path, checkpoints: Path
):
    put("some", "smnist", 0.9871)
    assert drawn(results, checkpoints).get(("", "overview")) is None
    put("some", "pmnist", 0.97)
    assert drawn(results, checkpoints)["", "overview"].x.label == "Error, %"
    put(
        "all", "copy", 1.0, intervals={"accuracy": wilson(10_000, 10_000).model_dump()}, samples=1_000, data__rows=1_000
    )
    chart = drawn(results, checkpoints)["", "overview"]
    [point] = [point for point in chart.points if point.row == "copy/all"]
    assert point.interval == (point.x, pytest.approx(0.0384, rel=0.01))
    assert point.x == min(point.x for point in chart.points)
    assert chart.x.label == "Error, %; at the left end none"


def test_the_gatings_of_the_study_stand_in_one_order_with_their_rows(
    put: Callable[..., Path], results: Path, checkpoints: Path
):
    for name, gate, cell in (("plain", "--", "lstm"), ("gru", "UR", "gru"), ("r", "-R", "lstm"), ("ur", "UR", "lstm")):
        put_seeds(put, (0.96, 0.98), f"urlstm-128-{name}", model__gate=gate, model__cell=cell)
    chart = drawn(results, checkpoints)["smnist", "gatings"]
    assert chart.names == ("UR LSTM", "-R LSTM", "-- LSTM", "UR GRU")
    assert sum(point.small for point in chart.points) == 8
    assert not chart.references
    # The study stays out of the plot of the models to choose from.
    assert ("smnist", "standings") not in drawn(results, checkpoints)


def test_chance_is_drawn_where_a_row_stands_at_it_and_no_deviation_leaves_the_scale(
    put: Callable[..., Path], results: Path, checkpoints: Path
):
    interval = {"accuracy": {"low": 0.1074, "high": 0.1199, "level": 0.95, "method": "Wilson"}}
    put_seeds(put, (0.99, 0.1135), "urlstm-128-ur", intervals={})
    put_seeds(put, (0.1135, 0.1135), "urlstm-128-plain", model__gate="--", intervals=interval)
    chart = drawn(results, checkpoints)["smnist", "gatings"]
    assert chart.references == (("chance", 11.35),)
    [mean] = [point for point in chart.points if point.title.startswith("urlstm-128-ur-smnist:")]
    assert mean.interval == (0.0, 100.0)
    assert all(0 <= value <= 100 for value, _ in chart.x.ticks)


def test_chance_stands_on_the_axis_where_all_rows_are_below_it(
    put: Callable[..., Path], results: Path, checkpoints: Path
):
    for name, accuracy in (("one", 0.40), ("other", 0.41)):
        put(name, "imdb", accuracy)
    chart = drawn(results, checkpoints)["imdb", "standings"]
    assert chart.references == (("chance", 50.0),)
    assert 0 < chart.x.position(50.0) < 1


@pytest.mark.parametrize("accuracy", [0.0, 1.0, 0.1, 0.99999])
def test_extreme_scores_can_be_drawn(put: Callable[..., Path], results: Path, checkpoints: Path, accuracy: float):
    for task in ("smnist", "pmnist"):
        put("model", task, accuracy, model__parameters=1, model__training__wall_seconds=1.0, intervals={})
    for chart in drawn(results, checkpoints).values():
        assert all(0 <= chart.x.position(point.x) <= 1 for point in chart.points)


def test_a_crowd_of_models_is_cut_to_the_best_and_the_published_reference_stays(
    put: Callable[..., Path], results: Path, checkpoints: Path
):
    for n in range(40):
        put(f"model-{n}", "smnist", 0.98 + n / 10_000)
    names = drawn(results, checkpoints)["smnist", "standings"].names
    assert len(names) <= 30
    assert {"model-39", "UR-LSTM"} <= set(names)
    assert "model-0" not in names


def test_curves_of_one_gating_differ_in_their_strokes():
    lines = [Line(((0.0, 0.0),), "x", "UR", nth=nth) for nth in range(4)]
    assert len({line.dashes for line in lines}) == 4
    assert {Line(((0.0, 0.0),), "x", gate).dashes for gate in GATINGS if gate.endswith("M")} == {(7, 4)}
