"""The learning curve of a run as a picture, drawn from its log."""

import io
from collections.abc import Sequence
from pathlib import Path

from urzoo.files import write_bytes
from urzoo.training.log import TrainingLine, ValidationLine


def draw_learning_curve(path: Path, lines: Sequence[TrainingLine | ValidationLine], *, title: str) -> None:
    """Draw training loss, validation loss and validation accuracy over epochs into a PNG file.

    The bytes depend on the lines, the title and matplotlib's version alone.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    training = [line for line in lines if isinstance(line, TrainingLine)]
    validation = [line for line in lines if isinstance(line, ValidationLine)]
    figure = Figure(figsize=(8.0, 3.6), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    loss, accuracy = figure.subplots(1, 2)
    loss.plot([line.epoch for line in training], [line.loss for line in training], linewidth=1.0, label="training")
    loss.plot(
        [line.epoch for line in validation],
        [line.cross_entropy for line in validation],
        marker="o",
        markersize=3,
        label="validation",
    )
    loss.set(xlabel="epoch", ylabel="cross entropy (nats)", yscale="log")
    loss.legend(frameon=False)
    accuracy.plot(
        [line.epoch for line in validation],
        [100 * line.accuracy for line in validation],
        marker="o",
        markersize=3,
        color="C1",
    )
    accuracy.set(xlabel="epoch", ylabel="validation accuracy (%)")
    for axes in (loss, accuracy):
        axes.grid(visible=True, linewidth=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    # parse_math off: a name with a dollar sign is text, not a formula.
    figure.suptitle(title, parse_math=False, fontsize=11)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", metadata={"Software": None})
    write_bytes(path, picture.getvalue())
