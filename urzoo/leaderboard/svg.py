"""A chart as SVG: inside the page, whose style sheet it follows, and as a picture of its own for Markdown.

Written by hand and not by matplotlib: a tenth of the size, light or dark as the reader has it, with links from marks to
rows, and the same bytes on every machine. Everything that is text goes through `escape`.
"""

import re
from collections.abc import Sequence
from functools import cache
from html import escape
from pathlib import Path

from urzoo.leaderboard.charts import Chart, Line, Point
from urzoo.recurrence.gates import GATINGS, SUBJECT, Gating

PAGE_FILES = Path(__file__).parent / "page_files"
WIDTH, CURVES_HEIGHT = 460, 250
LINE_HEIGHT, TASK_HEIGHT = 23, 32  # of each named line; of each task of the overview
RIGHT, TOP, BOTTOM = 18, 12, 44
CHARACTER_WIDTH = 7.2
KEY_STROKE, KEY_HEIGHT = 28, 19
PANELS_A_ROW, GAP, TITLE_HEIGHT = 2, 28, 30
_COLOURS = list(dict.fromkeys(Gating(name).colours for name in GATINGS))


def render_svg(chart: Chart) -> str:
    """The SVG element for one chart, with a title and a description for screen readers and links to the page's rows."""
    name = re.sub(r"[^a-z0-9_]+", "-", f"plot-{chart.task}-{chart.kind}-{chart.panel}").strip("-")
    frame = _Frame(chart)
    return "\n".join(
        [
            f'<svg class="plot" viewBox="0 0 {WIDTH} {_n(frame.whole_height)}" role="img" '
            f'aria-labelledby="{name}-title {name}-text">',
            f'<title id="{name}-title">{escape(chart.with_panel(chart.title))}</title>',
            f'<desc id="{name}-text">{escape(chart.description)}</desc>',
            *frame.drawn(links=True),
            "</svg>",
        ]
    )


def render_picture(charts: Sequence[Chart]) -> str:
    """A file of its own that shows some charts, at least one, each with its title."""
    frames = [_Frame(chart) for chart in charts]
    parts: list[str] = []
    columns = min(PANELS_A_ROW, len(frames))
    top = float(GAP / 2)
    for row in (frames[first : first + columns] for first in range(0, len(frames), columns)):
        for column, frame in enumerate(row):
            left = GAP / 2 + column * (WIDTH + GAP)
            parts.append(f'<g transform="translate({_n(left)} {_n(top)})">')
            parts.append(f'<text class="title" x="0" y="14">{escape(frame.chart.with_panel(frame.chart.title))}</text>')
            parts += [f'<g transform="translate(0 {TITLE_HEIGHT})">', *frame.drawn(links=False), "</g></g>"]
        top += TITLE_HEIGHT + max(frame.whole_height for frame in row) + GAP
    width, height = columns * (WIDTH + GAP), top - GAP / 2
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" class="plot picture" width="{width}" height="{_n(height)}" '
            f'viewBox="0 0 {width} {_n(height)}">',
            f"<style>{plot_style()}</style>",
            f'<rect class="paper" width="{width}" height="{_n(height)}"/>',
            *parts,
            "</svg>\n",
        ]
    )


@cache
def plot_style() -> str:
    """The style of plots, with the colours of the gatings; part of the page's style and of every picture."""
    light, dark = (
        "".join(f".plot .hue{number}{{--hue:{colours[ground]}}}" for number, colours in enumerate(_COLOURS))
        for ground in (0, 1)
    )
    texts = [(PAGE_FILES / name).read_text(encoding="utf-8") for name in ("colours.css", "plot.css")]
    return "".join([*texts, f"{light}\n@media (prefers-color-scheme: dark) {{ {dark} }}\n"])


class _Frame:
    """The drawing area of a chart: from values to positions."""

    def __init__(self, chart: Chart) -> None:
        self.chart = chart
        ticks = [text for _, text in chart.y.ticks] if chart.y else chart.names
        # Room for the words beside the vertical axis, and for the title that stands upright left of them.
        self.left = round(CHARACTER_WIDTH * max(map(len, ticks), default=0) + (36 if chart.y else 14))
        self.width = WIDTH - self.left - RIGHT
        self.line_height = LINE_HEIGHT if chart.task else TASK_HEIGHT
        self.height = CURVES_HEIGHT if chart.y else self.line_height * len(chart.names)
        self.top = TOP + (16 if chart.references and not chart.y else 0)
        self.bottom = self.top + self.height
        longest = max((len(line.label) for line in chart.keys), default=0)
        self.key_columns = max(1, int(self.width // (KEY_STROKE + 16 + CHARACTER_WIDTH * longest)))
        rows = -(-len(chart.keys) // self.key_columns) if chart.lines else 1
        self.whole_height = self.bottom + BOTTOM + KEY_HEIGHT * rows + 2

    def drawn(self, *, links: bool) -> list[str]:
        """All of the chart; `links` makes each mark a link to its row."""
        # Hollow marks first, the accent last, so that the subject lies on top.
        order = sorted(self.chart.points, key=lambda point: (not point.hollow, not point.small, point.accent))
        marks = [part for point in order for part in self._mark(point, links=links)]
        return [*self._axes(), *self._references(), *self._lines(), *marks, *self._keys()]

    def _x(self, value: float) -> float:
        return self.left + self.chart.x.position(value) * self.width

    def _y(self, value: float) -> float:
        if self.chart.y is None:
            return self.top + (value + 0.5) * self.line_height
        return self.top + (1 - self.chart.y.position(value)) * self.height

    def _axes(self) -> list[str]:
        chart, parts = self.chart, []
        for value, text in chart.y.ticks if chart.y else enumerate(chart.names):
            y = self._y(value)
            parts.append(f'<path class="grid" d="M{self.left} {_n(y)}H{WIDTH - RIGHT}"/>')
            kind = "tick" if chart.y else "label"
            parts.append(
                f'<text class="{kind}" x="{self.left - 8}" y="{_n(y + 4)}" text-anchor="end">{escape(text)}</text>'
            )
        for value, text in chart.x.ticks:
            x = self._x(value)
            parts.append(f'<path class="mark" d="M{_n(x)} {self.bottom}v4"/>')
            parts.append(
                f'<text class="tick" x="{_n(x)}" y="{self.bottom + 17}" text-anchor="middle">{escape(text)}</text>'
            )
        parts.append(f'<path class="axis" d="M{self.left} {self.bottom}H{WIDTH - RIGHT}"/>')
        middle = _n(self.left + self.width / 2)
        parts.append(
            f'<text class="name" x="{middle}" y="{self.bottom + 35}" text-anchor="middle">'
            f"{escape(chart.x.label)}</text>"
        )
        if chart.y:
            centre = _n(self.top + self.height / 2)
            parts.append(
                f'<text class="name" transform="translate(13 {centre}) rotate(-90)" text-anchor="middle">'
                f"{escape(chart.y.label)}</text>"
            )
        return parts

    def _references(self) -> list[str]:
        parts = []
        for label, value in self.chart.references:
            if self.chart.y:
                y = self._y(value)
                # Above the line, unless that leaves the frame. Curves begin at the left, where they know nothing.
                text = y - 5 if y > self.top + KEY_HEIGHT else y + 14
                parts.append(f'<path class="reference" d="M{self.left} {_n(y)}H{WIDTH - RIGHT}"/>')
                where = f'x="{WIDTH - RIGHT - 4}" y="{_n(text)}" text-anchor="end"'
            else:
                x = self._x(value)
                parts.append(f'<path class="reference" d="M{_n(x)} {self.top - 4}V{self.bottom}"/>')
                where = f'x="{_n(x)}" y="{self.top - 8}" text-anchor="middle"'
            parts.append(f'<text class="note" {where}>{escape(label)}</text>')
        return parts

    def _lines(self) -> list[str]:
        """The ranges around the curves, and the curves, the paper's method last."""
        parts = []
        order = sorted(self.chart.lines, key=lambda line: line.gate == SUBJECT)
        for line in order:
            if line.low:
                xs = [self._x(x) for x, _ in line.points]
                above = [f"{_n(x)} {_n(self._y(y))}" for x, y in zip(xs, line.high, strict=True)]
                below = [f"{_n(x)} {_n(self._y(y))}" for x, y in zip(xs, line.low, strict=True)]
                parts.append(f'<path class="band {_hue(line)}" d="M{"L".join([*above, *reversed(below)])}Z"/>')
        for line in order:
            path = "L".join(f"{_n(self._x(x))} {_n(self._y(y))}" for x, y in line.points)
            parts.append(f'<path {_stroke(line)} d="M{path}"><title>{escape(line.label)}</title></path>')
        return parts

    def _keys(self) -> list[str]:
        """Under the chart: the names of the lines, in columns, or what filled and hollow marks stand for."""
        parts, y = [], self.bottom + BOTTOM + 10
        if not self.chart.lines:
            x = float(self.left)
            points = self.chart.points
            keys = [("ink", "measured", any(not point.hollow for point in points))]
            keys += [("ink hollow", "published", any(point.hollow for point in points))]
            keys += [("accent", f"gating {SUBJECT}", any(point.accent for point in points))]
            for style, text in ((style, text) for style, text, is_there in keys if is_there):
                parts.append(f'<circle class="point {style}" cx="{_n(x + 5)}" cy="{_n(y)}" r="4.5"/>')
                parts.append(f'<text class="tick" x="{_n(x + 16)}" y="{_n(y + 4)}">{text}</text>')
                x += 16 + CHARACTER_WIDTH * len(text) + 14
            return parts
        width = self.width / self.key_columns
        for position, line in enumerate(self.chart.keys):
            row, column = divmod(position, self.key_columns)
            at, down = self.left + column * width, y + KEY_HEIGHT * row
            parts.append(f'<path {_stroke(line)} d="M{_n(at)} {_n(down)}h{KEY_STROKE}"/>')
            parts.append(
                f'<text class="label" x="{_n(at + KEY_STROKE + 8)}" y="{_n(down + 4)}">{escape(line.label)}</text>'
            )
        return parts

    def _mark(self, point: Point, *, links: bool) -> list[str]:
        x, y = self._x(point.x), self._y(point.y)
        style = ("accent" if point.accent else "ink") + (" hollow" if point.hollow else "")
        parts = []
        if point.interval:
            low, high = point.interval
            parts.append(f'<path class="interval {style}" d="M{_n(self._x(low))} {_n(y)}H{_n(self._x(high))}"/>')
        radius = 2.5 if point.small else 5
        parts.append(f'<circle class="point {style}" cx="{_n(x)}" cy="{_n(y)}" r="{radius}"/>')
        title = f"<title>{escape(point.title)}</title>"
        if not links:
            return [f"<g>{title}", *parts, "</g>"]
        return [f'<a href="#{escape(point.row)}" tabindex="-1">{title}', *parts, "</a>"]


def _hue(line: Line) -> str:
    return f"hue{_COLOURS.index(Gating(line.gate).colours)}" if line.gate else "ink"


def _stroke(line: Line) -> str:
    dashes = f' stroke-dasharray="{" ".join(str(length) for length in line.dashes)}"' if line.dashes else ""
    return f'class="curve {_hue(line)}"{dashes}'


def _n(value: float) -> str:
    """A position to a tenth of a unit, without trailing zeros and without minus zero."""
    text = f"{value:.1f}"
    text = text[:-2] if text.endswith(".0") else text
    return "0" if text == "-0" else text
