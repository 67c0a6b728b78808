"""A chart as SVG for the page. Colours come from the page's style sheet, so that plots follow dark mode.

Written by hand and not by matplotlib: a tenth of the size, themed, with links from marks to rows, and
the same bytes on every machine. Everything that is text goes through `escape`.
"""

from html import escape

from urzoo.leaderboard.charts import Chart, Line, Point
from urzoo.leaderboard.labels import place_labels

WIDTH, HEIGHT = 440, 300
GATING_HEIGHT = 46  # of each line of the gatings chart
LEFT, RIGHT, TOP, BOTTOM = 58, 16, 14, 46
LEFT_FOR_NAMES = 76  # the gatings chart has words on its vertical axis
CHARACTER_WIDTH, LINE_HEIGHT = 6.6, 14.0
KEY_STROKE, KEY_HEIGHT = 28, 18


def render_svg(chart: Chart) -> str:
    """The SVG element for one chart, with a title and a description for screen readers."""
    name = f"plot-{chart.task}-{chart.kind}"
    frame = _Frame(chart)
    parts = [
        f'<svg class="plot" viewBox="0 0 {WIDTH} {_n(frame.whole_height)}" role="img" '
        f'aria-labelledby="{escape(name)}-title {escape(name)}-text">',
        f'<title id="{escape(name)}-title">{escape(chart.title)}</title>',
        f'<desc id="{escape(name)}-text">{escape(chart.description)}</desc>',
        *frame.axes(),
    ]
    if chart.reference:
        parts += frame.reference(*chart.reference)
    parts += frame.lines()
    parts += frame.keys()
    # Hollow marks first, the accent last, so that the subject lies on top.
    for point in sorted(chart.points, key=lambda point: (not point.hollow, not point.small, point.accent)):
        parts += frame.mark(point)
    parts += frame.labels()
    parts.append("</svg>")
    return "\n".join(parts)


class _Frame:
    """The drawing area of a chart: from values to positions on the page."""

    def __init__(self, chart: Chart) -> None:
        self.chart = chart
        self.left = LEFT_FOR_NAMES if chart.kind == "gatings" else LEFT
        self.width = WIDTH - self.left - RIGHT
        names = len(chart.y.ticks)
        self.height = GATING_HEIGHT * names if chart.kind == "gatings" else HEIGHT - TOP - BOTTOM
        self.bottom = TOP + self.height
        longest = max((len(key.text) for key in chart.keys), default=0)
        self.key_columns = max(1, int(self.width // (KEY_STROKE + 20 + CHARACTER_WIDTH * longest)))
        rows = -(-len(chart.keys) // self.key_columns)
        self.whole_height = self.bottom + BOTTOM + (KEY_HEIGHT * rows + 4 if rows else 0)

    def x(self, value: float) -> float:
        return self.left + self.chart.x.place(value) * self.width

    def y(self, value: float) -> float:
        return TOP + (1 - self.chart.y.place(value)) * self.height

    def axes(self) -> list[str]:
        bottom = self.bottom
        parts = []
        for value, text in self.chart.y.ticks:
            y = self.y(value)
            parts.append(f'<path class="grid" d="M{self.left} {_n(y)}H{WIDTH - RIGHT}"/>')
            parts.append(
                f'<text class="tick" x="{self.left - 8}" y="{_n(y + 4)}" text-anchor="end">{escape(text)}</text>'
            )
        for value, text in self.chart.x.ticks:
            x = self.x(value)
            parts.append(f'<path class="mark" d="M{_n(x)} {bottom}v4"/>')
            parts.append(f'<text class="tick" x="{_n(x)}" y="{bottom + 18}" text-anchor="middle">{escape(text)}</text>')
        parts.append(f'<path class="axis" d="M{self.left} {bottom}H{WIDTH - RIGHT}"/>')
        middle = self.left + self.width / 2
        name = escape(self.chart.x.label)
        parts.append(f'<text class="name" x="{_n(middle)}" y="{_n(bottom + 38)}" text-anchor="middle">{name}</text>')
        if self.chart.y.label:
            centre = TOP + self.height / 2
            parts.append(
                f'<text class="name" transform="translate(14 {_n(centre)}) rotate(-90)" text-anchor="middle">'
                f"{escape(self.chart.y.label)}</text>"
            )
        return parts

    def reference(self, label: str, value: float) -> list[str]:
        y = self.y(value)
        # Above the line, unless that leaves the frame.
        text = y - 6 if y > TOP + LINE_HEIGHT else y + LINE_HEIGHT
        # Curves begin at the left, where they know nothing.
        x, anchor = (WIDTH - RIGHT - 4, "end") if self.chart.lines else (self.left + 4, "start")
        return [
            f'<path class="reference" d="M{self.left} {_n(y)}H{WIDTH - RIGHT}"/>',
            f'<text class="note" x="{x}" y="{_n(text)}" text-anchor="{anchor}">{escape(label)}</text>',
        ]

    def lines(self) -> list[str]:
        """The ranges around the curves, and the curves, the accent last."""
        parts = []
        for line in self.chart.lines:
            if line.low:
                xs = [self.x(x) for x, _ in line.points]
                above = [f"{_n(x)} {_n(self.y(y))}" for x, y in zip(xs, line.high, strict=True)]
                below = [f"{_n(x)} {_n(self.y(y))}" for x, y in zip(xs, line.low, strict=True)]
                parts.append(f'<path class="band {line.hue}" d="M{"L".join([*above, *reversed(below)])}Z"/>')
        for line in sorted(self.chart.lines, key=lambda line: line.hue == "accent"):
            path = "L".join(f"{_n(self.x(x))} {_n(self.y(y))}" for x, y in line.points)
            parts.append(f'<path {_stroke(line)} d="M{path}"><title>{escape(line.label)}</title></path>')
        return parts

    def keys(self) -> list[str]:
        """The names of the lines, in columns under the chart."""
        parts = []
        width = (WIDTH - self.left - RIGHT) / self.key_columns if self.chart.keys else 0.0
        for position, key in enumerate(self.chart.keys):
            row, column = divmod(position, self.key_columns)
            x, y = self.left + column * width, self.bottom + BOTTOM + 8 + KEY_HEIGHT * row
            parts.append(f'<path {_stroke(key.line)} d="M{_n(x)} {_n(y)}h{KEY_STROKE}"/>')
            parts.append(f'<text class="label" x="{_n(x + KEY_STROKE + 8)}" y="{_n(y + 4)}">{escape(key.text)}</text>')
        return parts

    def mark(self, point: Point) -> list[str]:
        x, y = self.x(point.x), self.y(point.y)
        style = ("accent" if point.accent else "ink") + (" hollow" if point.hollow else "")
        parts = [f'<a href="#{escape(point.row)}" tabindex="-1"><title>{escape(point.title)}</title>']
        if point.interval:
            low, high = point.interval
            if self.chart.metric_axis == "y":
                path = f"M{_n(x)} {_n(self.y(low))}V{_n(self.y(high))}"
            else:
                path = f"M{_n(self.x(low))} {_n(y)}H{_n(self.x(high))}"
            parts.append(f'<path class="interval {style}" d="{path}"/>')
        parts.append(f'<circle class="point {style}" cx="{_n(x)}" cy="{_n(y)}" r="{3 if point.small else 5}"/></a>')
        return parts

    def labels(self) -> list[str]:
        parts = []
        for label in place_labels(self.chart, self.width, self.height, CHARACTER_WIDTH, LINE_HEIGHT):
            x, y = self.x(label.x) + label.right, self.y(label.y) - label.up + 4
            anchor = "end" if label.right < 0 else "start"
            if label.far:
                parts.append(
                    f'<path class="lead" d="M{_n(self.x(label.x))} {_n(self.y(label.y))}L{_n(x)} {_n(y - 4)}"/>'
                )
            parts.append(
                f'<text class="label" x="{_n(x)}" y="{_n(y)}" text-anchor="{anchor}">{escape(label.text)}</text>'
            )
        return parts


def _stroke(line: Line) -> str:
    dashes = f' stroke-dasharray="{" ".join(str(length) for length in line.dashes)}"' if line.dashes else ""
    return f'class="curve {line.hue}"{dashes}'


def _n(value: float) -> str:
    """A position to a tenth of a unit, without trailing zeros and without minus zero."""
    text = f"{value:.1f}"
    text = text[:-2] if text.endswith(".0") else text
    return "0" if text == "-0" else text
