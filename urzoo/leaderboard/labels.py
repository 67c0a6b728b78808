"""Where the names of a chart's marks stand, so that none covers another or a mark."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from urzoo.leaderboard.charts import MOST_LABELS, Chart


@dataclass(frozen=True)
class Label:
    """A name beside the mark at `(x, y)`: `right` and `up` from it, negative to the left (ending there) and down.

    `far` where it stands so far off that a line must lead to the mark.
    """

    x: float
    y: float
    text: str
    right: float
    up: float
    far: bool = False


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
    places = {id(point): (chart.x.place(point.x) * width, chart.y.place(point.y) * height) for point in chart.points}
    order = sorted(named, key=lambda point: (-point.y, point.x, point.label))
    spans, bases = [], []
    for point in order:
        x, y = places[id(point)]
        others = [place for key, place in places.items() if key != id(point)]
        spans.append(_span(x, y, character_width * len(point.label), gap, line_height, others, width))
        bases.append(y)
    # Downwards in the order of the marks, each clear of those above; then upwards again from the frame's lower end.
    for upper, lower in itertools.combinations(range(len(order)), 2):
        if _meet(spans[upper], spans[lower]):
            bases[lower] = min(bases[lower], bases[upper] - line_height)
    bases = [max(base, line_height / 2) for base in bases]
    for lower, upper in itertools.combinations(reversed(range(len(order))), 2):
        if _meet(spans[upper], spans[lower]):
            bases[upper] = max(bases[upper], bases[lower] + line_height)
    labels = []
    for point, (start, _), base in zip(order, spans, bases, strict=True):
        x, y = places[id(point)]
        up = base - y
        labels.append(
            Label(point.x, point.y, point.label, gap if start > x else -gap, up, far=abs(up) > 1.2 * line_height)
        )
    return labels


def _span(
    x: float,
    y: float,
    length: float,
    gap: float,
    line_height: float,
    others: Sequence[tuple[float, float]],
    width: float,
) -> tuple[float, float]:
    """From where to where a label goes: to the right of its mark, or to the left where that has no room or a mark."""
    right, left = (x + gap, x + gap + length), (x - gap - length, x - gap)

    def is_clear(span: tuple[float, float]) -> bool:
        inside = span[0] >= -gap and span[1] <= width + gap
        beside = (span[0] - gap / 2 < at < span[1] + gap / 2 and abs(up - y) < line_height / 2 for at, up in others)
        return inside and not any(beside)

    if is_clear(right) or (right[1] <= width + gap and not is_clear(left)):
        return right
    return left


def _meet(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return one[0] < other[1] and other[0] < one[1]
