"""The charts as PNG pictures for Markdown: one picture for each kind of plot, a panel for each task.

Each file carries, as its text entry `Source`, a digest of what it draws. Whether a picture is up to date
is judged by that digest and not by its bytes, which differ from one build of matplotlib to another.
"""

import hashlib
import io
import itertools
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from urzoo.leaderboard.charts import Chart
from urzoo.leaderboard.labels import Label, place_labels

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ACCENT, INK, DARK, FAINT = "#0f6f69", "#55606a", "#1c2329", "#d9dee2"
# Okabe and Ito's colours, a little darker, for those who see red and green alike.
HUES = {"accent": ACCENT, "ink": INK, "blue": "#2f6fb5", "red": "#c2541b", "green": "#7a8b1f"}
PANEL_WIDTH_INCHES, PANEL_HEIGHT_INCHES, DOTS_PER_INCH = 4.8, 3.4, 144
# Margins of a panel in inches, and what they leave for the drawing.
MARGIN_LEFT, MARGIN_RIGHT, MARGIN_TOP, MARGIN_BOTTOM = 0.72, 0.16, 0.36, 0.56
AREA_WIDTH_POINTS = 72 * (PANEL_WIDTH_INCHES - MARGIN_LEFT - MARGIN_RIGHT)
AREA_HEIGHT_POINTS = 72 * (PANEL_HEIGHT_INCHES - MARGIN_TOP - MARGIN_BOTTOM)
LABEL_POINTS, CHARACTER_WIDTH_POINTS, LINE_HEIGHT_POINTS = 7.5, 4.3, 9.5
PANELS_A_ROW = 2
DRAWING_VERSION = 3  # raise it when the pictures should be drawn anew although what they show is the same


def source_digest(charts: Sequence[Chart]) -> str:
    """The sha256 of everything that a picture of these charts shows."""
    shown = [asdict(chart) for chart in charts]
    return hashlib.sha256(json.dumps([DRAWING_VERSION, shown]).encode()).hexdigest()


def drawn_from(path: Path) -> str | None:
    """The digest of what the picture at `path` shows, or None where there is no such picture."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as picture:
            source = picture.info.get("Source")
    except (FileNotFoundError, NotADirectoryError, UnidentifiedImageError):
        return None
    return source if isinstance(source, str) else None


def render_png(charts: Sequence[Chart]) -> bytes:
    """The picture of some charts, at least one."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(PANELS_A_ROW, len(charts))
    rows = -(-len(charts) // columns)
    # A user's own matplotlib settings must not change the pictures.
    with matplotlib.rc_context(matplotlib.rcParamsDefault):
        figure = Figure(figsize=(columns * PANEL_WIDTH_INCHES, rows * PANEL_HEIGHT_INCHES), dpi=DOTS_PER_INCH)
        FigureCanvasAgg(figure)
        for position, chart in enumerate(charts):
            row, column = divmod(position, columns)
            left = (column + MARGIN_LEFT / PANEL_WIDTH_INCHES) / columns
            bottom = (rows - 1 - row + MARGIN_BOTTOM / PANEL_HEIGHT_INCHES) / rows
            width = AREA_WIDTH_POINTS / 72 / PANEL_WIDTH_INCHES / columns
            height = AREA_HEIGHT_POINTS / 72 / PANEL_HEIGHT_INCHES / rows
            _draw(chart, figure.add_axes((left, bottom, width, height)))
        picture = io.BytesIO()
        figure.savefig(picture, format="png", metadata={"Software": None, "Source": source_digest(charts)})
    return picture.getvalue()


def _draw(chart: Chart, axes: "Axes") -> None:
    from matplotlib.lines import Line2D

    axes.set_title(chart.title.split(":")[0], fontsize=10, loc="left", color=DARK, parse_math=False)
    _set_axis(axes, chart)
    for line in sorted(chart.lines, key=lambda line: line.hue == "accent"):
        xs, ys = zip(*line.points, strict=True)
        style = (0, line.dashes) if line.dashes else "-"
        if line.low:
            axes.fill_between(xs, line.low, line.high, color=HUES[line.hue], alpha=0.1, linewidth=0, zorder=1)
        axes.plot(xs, ys, color=HUES[line.hue], linewidth=1.5, linestyle=style, zorder=2)
    if chart.keys:
        handles = [
            Line2D([], [], color=HUES[key.line.hue], linestyle=(0, key.line.dashes) if key.line.dashes else "-")
            for key in chart.keys
        ]
        names = [key.text for key in chart.keys]
        columns = 2 if len(names) > 4 and max(map(len, names)) < 16 else 1
        legend = axes.legend(
            handles, names, loc="best", framealpha=0.85, edgecolor="none", fontsize=LABEL_POINTS, ncols=columns
        )
        for text in legend.get_texts():
            text.set_parse_math(False)
    # Hollow marks first, the accent last, so that the subject lies on top.
    for small, hollow, accent in itertools.product((True, False), (True, False), (False, True)):
        kind = (small, hollow, accent)
        points = [point for point in chart.points if (point.small, point.hollow, point.accent) == kind]
        color = ACCENT if accent else INK
        bars = [(point, *point.interval) for point in points if point.interval]
        lows, highs = [low for _, low, _ in bars], [high for _, _, high in bars]
        if chart.metric_axis == "y":
            axes.vlines([point.x for point, _, _ in bars], lows, highs, color=color, linewidth=1.2, zorder=3)
        else:
            axes.hlines([point.y for point, _, _ in bars], lows, highs, color=color, linewidth=1.2, zorder=3)
        face = "white" if hollow else color
        places = [point.x for point in points], [point.y for point in points]
        axes.plot(*places, "o", markersize=3.5 if small else 6, color=color, markerfacecolor=face, zorder=4)
    if chart.reference:
        label, value = chart.reference
        axes.axhline(value, color=INK, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
        axes.annotate(
            label,
            (0.99 if chart.lines else 0.01, value),
            xycoords=("axes fraction", "data"),
            ha="right" if chart.lines else "left",
            xytext=(0, 3),
            textcoords="offset points",
            fontsize=LABEL_POINTS,
            color=INK,
            parse_math=False,
        )
    _name_marks(chart, axes)


def _name_marks(chart: Chart, axes: "Axes") -> None:
    for label in place_labels(chart, AREA_WIDTH_POINTS, AREA_HEIGHT_POINTS, CHARACTER_WIDTH_POINTS, LINE_HEIGHT_POINTS):
        axes.annotate(
            label.text,
            (label.x, label.y),
            xytext=(label.right, label.up),
            textcoords="offset points",
            ha="right" if label.right < 0 else "left",
            va="center",
            fontsize=LABEL_POINTS,
            color=DARK,
            parse_math=False,
            arrowprops=_lead(label) if label.far else None,
        )


def _lead(label: Label) -> dict[str, object]:
    """A thin line from the near end of a name to its mark."""
    near = (1.0 if label.right < 0 else 0.0, 0.5)
    return {"arrowstyle": "-", "color": INK, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 0, "relpos": near}


def _set_axis(axes: "Axes", chart: Chart) -> None:
    if chart.x.log:
        axes.set_xscale("log")
    if chart.y.log:
        axes.set_yscale("log")
    axes.set_xlim(chart.x.low, chart.x.high)
    axes.set_ylim(chart.y.low, chart.y.high)
    axes.set_xticks([value for value, _ in chart.x.ticks], [text for _, text in chart.x.ticks], fontsize=8)
    axes.set_yticks([value for value, _ in chart.y.ticks], [text for _, text in chart.y.ticks], fontsize=8)
    axes.minorticks_off()
    axes.set_xlabel(chart.x.label, fontsize=8.5, color=INK)
    axes.set_ylabel(chart.y.label, fontsize=8.5, color=INK)
    axes.tick_params(colors=INK, length=3)
    axes.grid(axis="y", color=FAINT, linewidth=0.7, zorder=0)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(FAINT)
