"""The learning log of a language model: one JSON object a line, as `urzoo.training.log` writes it for rows.

`epoch` counts passes over the training documents, so that readers of logs have the same key in all of them.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError

from urzoo.errors import CheckpointError
from urzoo.files import write_text
from urzoo.schema import Strict, describe, read_text
from urzoo.training.log import Count, NotNegative, TrainingLine


class LMValidationLine(Strict):
    """Scores on the validation documents, read as one stream with the state carried along.

    `cross_entropy` is in nats a token, `word_perplexity` for each word and line end; `weights` says whether they are
    those of the averaged weights.
    """

    kind: Literal["validation"] = "validation"
    step: Count
    epoch: NotNegative
    weights: Literal["trained", "averaged"]
    cross_entropy: NotNegative
    word_perplexity: NotNegative
    wall_seconds: NotNegative

    @property
    def scores(self) -> dict[str, float]:
        """The metrics by name."""
        return {"cross_entropy": self.cross_entropy, "word_perplexity": self.word_perplexity}


LMLine = TrainingLine | LMValidationLine
_LINE: TypeAdapter[LMLine] = TypeAdapter(Annotated[LMLine, Field(discriminator="kind")])


def write_lm_log(path: Path, lines: Sequence[LMLine]) -> None:
    """Replace the log at `path` by `lines`."""
    write_text(path, "".join(json.dumps(line.model_dump()) + "\n" for line in lines))


def read_lm_log(path: Path) -> list[LMLine]:
    """The lines of the log at `path`; none where there is no file.

    Raises:
        CheckpointError: The file cannot be read or a line is malformed; the message names the line.
    """
    if not path.exists():
        return []
    lines = []
    for number, text in enumerate(read_text(path, error=CheckpointError).splitlines(), start=1):
        try:
            lines.append(_LINE.validate_json(text))
        except ValidationError as failure:
            raise CheckpointError(f"{path} line {number}: {describe(failure)}") from failure
    return lines


def draw_lm_curve(title: str, lines: Sequence[LMLine]) -> bytes:
    """A PNG picture of a run: cross-entropy a token in training and validation, and the perplexity for each word."""
    import io

    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.0, 3.6), dpi=110, layout="constrained")
    left, right = figure.subplots(1, 2)
    training = [line for line in lines if isinstance(line, TrainingLine)]
    validation = [line for line in lines if isinstance(line, LMValidationLine)]
    left.plot([line.step for line in training], [line.loss for line in training], linewidth=0.8, label="training")
    left.plot(
        [line.step for line in validation],
        [line.cross_entropy for line in validation],
        marker="o",
        markersize=3,
        label="validation",
    )
    left.set(xlabel="step", ylabel="cross entropy (nats a token)")
    left.legend(frameon=False)
    right.plot(
        [line.step for line in validation],
        [line.word_perplexity for line in validation],
        marker="o",
        markersize=3,
        color="C1",
    )
    right.set(xlabel="step", ylabel="validation perplexity for each word", yscale="log")
    for axes in (left, right):
        axes.grid(visible=True, linewidth=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    # parse_math off: a name with a dollar sign is text, not a formula.
    figure.suptitle(title, parse_math=False, fontsize=11)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", metadata={"Software": None})
    return picture.getvalue()


def perplexity(nats: float, units: int) -> float:
    """The exponential of so many nats for each of so many units, no more than a float holds."""
    return math.exp(min(nats / max(units, 1), 700.0))
