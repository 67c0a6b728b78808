import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import pytest

from urzoo.leaderboard.axes import linear_axis
from urzoo.leaderboard.charts import Chart, Line
from urzoo.leaderboard.svg import WIDTH, render_picture, render_svg

from .test_charts import drawn


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


def test_a_picture_of_several_charts_holds_its_style_and_asks_for_nothing(example: Path, checkpoints: Path):
    shown = list(drawn(example, checkpoints).values())
    text = render_picture(shown)
    root = ET.fromstring(text)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    titles = [element.text for element in root.iter() if element.get("class") == "title"]
    assert titles == [chart.title for chart in shown]
    assert "prefers-color-scheme: dark" in text
    assert not re.search(r"href|url\(|@import|<script", text)


def test_drawings_are_the_same_each_time(example: Path, checkpoints: Path):
    first, second = (render_picture(list(drawn(example, checkpoints).values())) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("values", [[0.0, 1.0], [0.00001, 0.00009], [1_000_000.0, 9_000_000.0], [98.5, 99.5]])
def test_the_title_of_the_vertical_axis_is_clear_of_the_marks(values: list[float]):
    axis = linear_axis("Score", values)
    line = Line(((0.0, values[0]), (1.0, values[1])), "a", "UR")
    chart = Chart("t", "learning_curves", "T", "D", linear_axis("Epoch", [0.0, 1.0]), axis, lines=(line,))
    root = ET.fromstring(render_svg(chart))
    ends = [float(text.get("x")) for text in root.iter("text") if text.get("text-anchor") == "end"]
    longest = max(len(text) for _, text in axis.ticks)
    # An average character is about 6.5 wide; the title stands upright from 3 to 17.
    assert min(ends) - 6.5 * longest > 17
    assert max(ends) < WIDTH / 2


def test_hostile_names_are_text(put: Callable[..., Path], results: Path, checkpoints: Path):
    from urzoo.leaderboard.axes import Axis
    from urzoo.leaderboard.charts import Point

    hostile = "]]></title></svg><script>alert(1)</script>"
    point = Point(0.5, 0.0, hostile, '"><x', accent=True, hollow=False)
    chart = Chart(
        "t", "standings", hostile, hostile, Axis(hostile, 0.0, 1.0, ((0.5, hostile),)), None, (hostile,), (point,)
    )
    for text in (render_svg(chart), render_picture([chart])):
        root = ET.fromstring(text)
        assert not [element for element in root.iter() if element.tag.endswith("script")]
        assert hostile in [element.text for element in root.iter()]
