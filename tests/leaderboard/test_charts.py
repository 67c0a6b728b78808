import itertools
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import pytest

from urzoo.leaderboard.build import make_board
from urzoo.leaderboard.charts import MOST_LABELS, Chart, charts
from urzoo.leaderboard.labels import place_labels
from urzoo.leaderboard.svg import render_svg

SVG = "{http://www.w3.org/2000/svg}"


def drawn(results: Path, checkpoints: Path) -> dict[tuple[str, str], Chart]:
    board, _ = make_board(results, results.parent, checkpoints=checkpoints)
    return {(chart.task, chart.kind): chart for chart in charts(board)}


def test_every_task_with_data_has_its_four_plots(example: Path, checkpoints: Path):
    kinds = ("parameters", "training_cost", "learning_curves", "gatings")
    assert set(drawn(example, checkpoints)) == {(task, kind) for task in ("smnist", "pmnist") for kind in kinds}


def test_without_measured_rows_there_are_no_plots(results: Path, checkpoints: Path):
    assert not drawn(results, checkpoints)


def test_every_mark_lies_inside_the_frame(example: Path, checkpoints: Path):
    for chart in drawn(example, checkpoints).values():
        for point in chart.points:
            assert 0 <= chart.x.place(point.x) <= 1
            assert 0 <= chart.y.place(point.y) <= 1
        for line in chart.lines:
            assert all(0 <= chart.x.place(x) <= 1 and 0 <= chart.y.place(y) <= 1 for x, y in line.points)


def test_every_axis_has_marks_to_read_it_by(example: Path, checkpoints: Path):
    for chart in drawn(example, checkpoints).values():
        for axis in (chart.x, chart.y):
            assert 1 <= len(axis.ticks) <= 10
            assert len({text for _, text in axis.ticks}) == len(axis.ticks)


def test_measured_marks_are_filled_and_published_ones_hollow(example: Path, checkpoints: Path):
    chart = drawn(example, checkpoints)["smnist", "gatings"]
    assert {point.hollow for point in chart.points if "measured" in point.title} == {False}
    assert {point.hollow for point in chart.points if "published" in point.title} == {True}
    assert all("measured" in point.title or "published" in point.title for point in chart.points)


def test_the_gatings_stand_side_by_side_with_ur_first(example: Path, checkpoints: Path):
    chart = drawn(example, checkpoints)["smnist", "gatings"]
    names = [name for _, name in sorted(chart.y.ticks, reverse=True)]
    assert names == ["UR LSTM", "-- LSTM", "UR GRU"]


def test_outdated_rows_are_in_no_plot(example: Path, checkpoints: Path):
    for chart in drawn(example, checkpoints).values():
        assert not any("-64-" in point.row for point in chart.points)


@pytest.mark.parametrize("count", [1, 2, 5, 8])
def test_labels_never_cover_each_other(put: Callable[..., Path], results: Path, checkpoints: Path, count: int):
    for n in range(count):
        put(f"model-{n}", "smnist", 0.98)
    chart = drawn(results, checkpoints)["smnist", "training_cost"]
    labels = place_labels(chart, 360, 240, 6.6, 14)
    assert len(labels) == count
    boxes = []
    for label in labels:
        x, y = chart.x.place(label.x) * 360 + label.right, chart.y.place(label.y) * 240 + label.up
        length = 6.6 * len(label.text)
        boxes.append((x, x + length, y) if label.right > 0 else (x - length, x, y))
    for one, other in itertools.combinations(boxes, 2):
        apart = one[1] <= other[0] or other[1] <= one[0] or abs(one[2] - other[2]) >= 14 - 1e-6
        assert apart, (one, other)
    assert all(left >= -20 and right <= 380 and 7 <= y <= 240 for left, right, y in boxes)


def test_a_crowd_of_marks_is_not_labelled(put: Callable[..., Path], results: Path, checkpoints: Path):
    for n in range(MOST_LABELS + 1):
        put(f"model-{n}", "smnist", 0.98)
    assert not place_labels(drawn(results, checkpoints)["smnist", "training_cost"], 360, 240, 6.6, 14)


@pytest.mark.parametrize("accuracy", [0.0, 1.0, 0.1, 0.99999])
def test_extreme_scores_can_be_drawn(put: Callable[..., Path], results: Path, checkpoints: Path, accuracy: float):
    put("model", "smnist", accuracy, model__parameters=1, model__training__wall_seconds=1.0, intervals={})
    for chart in drawn(results, checkpoints).values():
        ET.fromstring(render_svg(chart))


def test_the_svg_is_well_formed_and_says_what_it_shows(example: Path, checkpoints: Path):
    for chart in drawn(example, checkpoints).values():
        root = ET.fromstring(render_svg(chart))
        title, description = root.find("title"), root.find("desc")
        assert title.text == chart.title
        assert description.text == chart.description
        named = {title.get("id"), description.get("id")}
        assert set(root.get("aria-labelledby").split()) == named
        assert {link.get("href") for link in root.iter("a")} == {f"#{point.row}" for point in chart.points}
        # The page's policy allows no inline style.
        assert not any(element.get("style") for element in root.iter())


def test_drawings_are_the_same_each_time(example: Path, checkpoints: Path):
    first, second = ([render_svg(chart) for chart in drawn(example, checkpoints).values()] for _ in range(2))
    assert first == second


def test_curves_of_one_gating_differ_in_their_strokes(put: Callable[..., Path], results: Path, tmp_path: Path):
    from .conftest import write_checkpoint

    for n in range(4):
        put(f"model-{n}", "smnist", 0.98, model__weights_sha256=str(n) * 64)
        write_checkpoint(tmp_path / "zoo" / f"model-{n}", "smnist", str(n) * 64, [0.5, 0.9])
    lines = drawn(results, tmp_path / "zoo")["smnist", "learning_curves"].lines
    assert len({line.dashes for line in lines}) == 4
    assert {line.hue for line in lines} == {"accent"}


def test_published_gatings_alone_are_no_comparison(put: Callable[..., Path], results: Path, checkpoints: Path):
    nothing = dict.fromkeys(("model__cell", "model__gate", "model__hidden_size", "model__training"))
    put("vit", "scifar", 0.5, model__architecture="ViTForImageClassification", **nothing)
    assert ("scifar", "gatings") not in drawn(results, checkpoints)
