"""Learning curves on the synthetic problems: of one run, and of all gatings side by side."""

import io
from collections.abc import Mapping, Sequence

import numpy as np

from urzoo.training.synthetic.log import StreamLine, StreamTrainingLine, StreamValidationLine

# (score, label, scale, logarithmic), the first that a log has is drawn; the dashed line is what knowing nothing gives.
_SHOWN = (
    ("accuracy", "symbols recalled (%)", 100.0, False, 12.5),
    ("mean_squared_error", "mean squared error", 1.0, True, 1 / 6),
)
# Okabe and Ito's colours, one a primary gate; the auxiliary gate decides the stroke.
_COLOURS = {"-": "#000000", "C": "#D55E00", "O": "#009E73", "U": "#0072B2"}
_STROKES = {"-": ":", "M": "--", "R": "-"}

Curve = tuple[list[int], list[float]]


def validation_curve(lines: Sequence[StreamLine]) -> tuple[str, Curve]:
    """The main score's name, and its values by step."""
    validations = [line for line in lines if isinstance(line, StreamValidationLine)]
    for name, *_ in _SHOWN:
        if validations and name in validations[0].scores:
            return name, ([line.step for line in validations], [line.scores[name] for line in validations])
    return _SHOWN[0][0], ([], [])


def draw_stream_curve(title: str, lines: Sequence[StreamLine]) -> bytes:
    """A PNG picture of one run: training loss and validation score by step."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.0, 3.6), dpi=110, layout="constrained")
    left, right = figure.subplots(1, 2)
    training = [line for line in lines if isinstance(line, StreamTrainingLine)]
    left.plot([line.step for line in training], [line.loss for line in training], linewidth=1.0)
    left.set(xlabel="step", ylabel="training loss", yscale="log")
    score, curve = validation_curve(lines)
    _, label, scale, logarithmic, chance = next(entry for entry in _SHOWN if entry[0] == score)
    right.plot(curve[0], [value * scale for value in curve[1]], color="C1")
    right.axhline(chance, color="0.5", linestyle="--", linewidth=0.8)
    right.set(xlabel="step", ylabel=label, yscale="log" if logarithmic else "linear")
    for axes in (left, right):
        axes.grid(visible=True, linewidth=0.3)
    # parse_math off: a name with a dollar sign is text, not a formula.
    figure.suptitle(title, parse_math=False, fontsize=11)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", metadata={"Software": None})
    return picture.getvalue()


def draw_gatings(title: str, score: str, curves: Mapping[str, Sequence[Curve]]) -> bytes:
    """A PNG picture of all gatings: the median over the seeds at each step, with their range as a band.

    Args:
        title: Above the picture.
        score: "accuracy" or "mean_squared_error".
        curves: By gating, one curve per seed; curves of one gating may be of different length, and the shorter ones
            count as far as they go.
    """
    from matplotlib.figure import Figure

    _, label, scale, logarithmic, chance = next(entry for entry in _SHOWN if entry[0] == score)
    figure = Figure(figsize=(8.4, 4.6), dpi=120, layout="constrained")
    axes = figure.subplots()
    for gate, seeds in curves.items():
        values: dict[int, list[float]] = {}
        for curve in seeds:
            for step, value in zip(*curve, strict=True):
                values.setdefault(step, []).append(value * scale)
        steps = sorted(values)
        colour = _COLOURS[gate[0]]
        axes.plot(
            steps,
            [float(np.median(values[step])) for step in steps],
            color=colour,
            linestyle=_STROKES[gate[1]],
            linewidth=1.6,
            label=f"{gate} ({len(seeds)} seed{'s' if len(seeds) != 1 else ''})",
        )
        low, high = [min(values[step]) for step in steps], [max(values[step]) for step in steps]
        axes.fill_between(steps, low, high, color=colour, alpha=0.12, linewidth=0)
    axes.axhline(chance, color="0.5", linestyle=(0, (1, 3)), linewidth=1.0, label="knowing nothing")
    axes.set(xlabel="training step", ylabel=label, yscale="log" if logarithmic else "linear")
    axes.grid(visible=True, linewidth=0.3)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=9)
    figure.suptitle(title, parse_math=False, fontsize=11)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", metadata={"Software": None})
    return picture.getvalue()
