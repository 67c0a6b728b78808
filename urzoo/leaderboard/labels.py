"""Where the names of a chart's marks stand, so that none covers another or a mark."""

from collections.abc import Sequence
from dataclasses import dataclass

from urzoo.leaderboard.charts import MOST_LABELS, Chart


@dataclass(frozen=True)
class Label:
    """A name beside the mark at `(x, y)`: `right` and `up` from it, negative to the left (ending there) and down."""

    x: float
    y: float
    text: str
    right: float
    up: float


def place_labels(chart: Chart, width: float, height: float, character_width: float, line_height: float) -> list[Label]:
    """Names for the marks of a chart, moved where they would touch another or a mark; none if there are too many.

    Args:
        chart: The chart whose marks are named.
        width: Of the drawing area, like all lengths here in whatever unit the drawing uses.
        height: Of the drawing area.
        character_width: Of the average character.
        line_height: Of a line of text.
    """
    named = [point for point in chart.points if point.label]
    if len(named) > MOST_LABELS:
        return []
    gap = 0.75 * line_height
    # Boxes that are taken, as left, right, bottom, top: first those of the marks themselves.
    places = {id(point): (chart.x.place(point.x) * width, chart.y.place(point.y) * height) for point in chart.points}
    taken = [(x - gap / 2, x + gap / 2, y - gap / 2, y + gap / 2) for x, y in places.values()]
    labels: list[Label] = []
    for point in sorted(named, key=lambda point: (-point.y, point.x, point.label)):
        x, y = places[id(point)]
        length = character_width * len(point.label)
        right, up = _free_place(x, y, length, gap, line_height, taken, width, height)
        start = x + right if right > 0 else x + right - length
        taken.append((start, start + length, y + up - line_height / 2, y + up + line_height / 2))
        labels.append(Label(point.x, point.y, point.label, right, up))
    return labels


def _free_place(
    x: float,
    y: float,
    length: float,
    gap: float,
    line_height: float,
    taken: Sequence[tuple[float, float, float, float]],
    width: float,
    height: float,
) -> tuple[float, float]:
    """Where a label stands from its mark at `(x, y)`: the nearest place inside the frame that is free."""
    sides = [gap, -gap] if x + gap + length <= width + gap else [-gap, gap]
    for lines in range(2 * MOST_LABELS):
        for up in (-lines * line_height, lines * line_height):
            for right in sides:
                start = x + right if right > 0 else x + right - length
                box = (start, start + length, y + up - line_height / 2, y + up + line_height / 2)
                inside = -gap <= box[0] and box[1] <= width + gap and -gap <= y + up <= height
                if inside and not any(_overlap(box, other) for other in taken):
                    return right, up
    return sides[0], 0.0


def _overlap(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> bool:
    return one[0] < other[1] and other[0] < one[1] and one[2] < other[3] - 1e-9 and other[2] < one[3] - 1e-9
