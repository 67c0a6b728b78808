"""The learning log of a run, one JSON object a line for training and validation, and its figure.

It is written while the run goes on, and is what a resumed run knows of the steps before. `epoch` counts passes over the
training data, or the part of a drawn stream that has been seen, so that readers of logs have the same key in all.
"""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from urzoo.errors import CheckpointError
from urzoo.files import write_text
from urzoo.schema import Count, Strict, describe, read_text
from urzoo.training.scores import CROSS_ENTROPY, Score

NotNegative = Annotated[float, Field(ge=0)]


class TrainingLine(Strict):
    """Means over the steps since the line before; `wall_seconds` counts from the start, over all resumptions.

    `gradient_norm` is that of the last step before clipping, over all trained parameters. `tokens_per_second` counts
    time steps of sequences, leaving out the time that validation and saving took. `live_head_share` is the share of the
    units of a head's ReLU layer that answered to at least one row of the last step; models without have none.
    """

    kind: Literal["training"] = "training"
    step: Count
    epoch: NotNegative
    loss: float
    learning_rate: NotNegative
    gradient_norm: NotNegative
    tokens_per_second: NotNegative
    wall_seconds: NotNegative
    live_head_share: Annotated[float, Field(ge=0, le=1)] | None = None


class ValidationLine(Strict):
    """Scores on what is held out, each under its name; `weights` says whether they are those of the averaged ones."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, NotNegative]

    kind: Literal["validation"] = "validation"
    step: Count
    epoch: NotNegative
    weights: Literal["trained", "averaged"] = "trained"
    wall_seconds: NotNegative

    @property
    def scores(self) -> dict[str, float]:
        """The scores by name."""
        return dict(self.__pydantic_extra__)


LogLine = TrainingLine | ValidationLine
_LINE: TypeAdapter[LogLine] = TypeAdapter(Annotated[LogLine, Field(discriminator="kind")])


def write_log(path: Path, lines: Sequence[LogLine]) -> None:
    """Replace the log at `path` by `lines`.

    The whole file is written each time: a run that goes on from an earlier state then leaves no line of steps that
    were lost, and the log is short (some hundred lines).
    """
    write_text(path, "".join(json.dumps(line.model_dump(exclude_none=True)) + "\n" for line in lines))


def read_log(path: Path) -> list[LogLine]:
    """The lines of the log at `path`.

    Raises:
        CheckpointError: The file cannot be read or a line is malformed; the message names the line.
    """
    lines = []
    for number, text in enumerate(read_text(path, error=CheckpointError, most_bytes=None).splitlines(), start=1):
        try:
            lines.append(_LINE.validate_json(text))
        except ValidationError as failure:
            raise CheckpointError(f"{path} line {number}: {describe(failure)}") from failure
    return lines


def validations(lines: Sequence[LogLine]) -> list[ValidationLine]:
    """The lines of validations."""
    return [line for line in lines if isinstance(line, ValidationLine)]


def selected(lines: Sequence[LogLine], by: Score | None) -> ValidationLine | None:
    """The validation of the weights that a run of this log would ship: the first of the best, or the last.

    Args:
        lines: Of the log so far.
        by: The score whose best counts; None for the last.
    """
    found = validations(lines)
    if by is None or not found:
        return found[-1] if found else None
    best = max if by.higher_is_better else min  # of equal ones either gives the first
    return best(found, key=lambda line: line.scores[by.name])


def draw_learning_curve(lines: Sequence[LogLine], *, title: str, score: Score) -> bytes:
    """A PNG picture of a run: the loss, and the validation score by epoch.

    The bytes depend on the lines, the title and matplotlib's version alone.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    training = [line for line in lines if isinstance(line, TrainingLine)]
    validation = validations(lines)
    figure = Figure(figsize=(8.0, 3.6), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    loss, shown = figure.subplots(1, 2)
    loss.plot([line.epoch for line in training], [line.loss for line in training], linewidth=1.0, label="training")
    dots: dict[str, Any] = {"marker": "o", "markersize": 3}
    if validation and CROSS_ENTROPY.name in validation[0].scores:
        values = [line.scores[CROSS_ENTROPY.name] for line in validation]
        loss.plot([line.epoch for line in validation], values, label="validation", **dots)
        loss.legend(frameon=False)
        loss.set(ylabel=CROSS_ENTROPY.label)
    else:
        loss.set(ylabel="training loss")
    loss.set(xlabel="epoch", yscale="log")
    values = [score.scale * line.scores[score.name] for line in validation]
    shown.plot([line.epoch for line in validation], values, color="C1", **dots)
    if score.chance is not None:
        shown.axhline(score.scale * score.chance, color="0.5", linestyle="--", linewidth=0.8)
    shown.set(xlabel="epoch", ylabel=f"validation {score.label}", yscale="log" if score.logarithmic else "linear")
    for axes in (loss, shown):
        axes.grid(visible=True, linewidth=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        if axes.get_yscale() == "log":
            low, high = axes.get_ylim()
            axes.yaxis.set_major_formatter("{x:g}")
            # Within a decade the ticks between powers of ten are all there are.
            if high < 10 * low:
                axes.yaxis.set_minor_formatter("{x:g}")
    # parse_math off: a name with a dollar sign is text, not a formula.
    figure.suptitle(title, parse_math=False, fontsize=11)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", metadata={"Software": None})
    return picture.getvalue()
