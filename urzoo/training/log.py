"""The learning log: one JSON object a line, for training and validation, written while the run goes on."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError

from urzoo.errors import CheckpointError
from urzoo.files import write_text
from urzoo.schema import Strict, describe, read_text

Count = Annotated[int, Field(ge=0)]
NotNegative = Annotated[float, Field(ge=0)]


class TrainingLine(Strict):
    """Means over the steps since the line before; `wall_seconds` counts from the start, over all resumptions.

    `gradient_norm` is that of the last step before clipping, over all trained parameters. `tokens_per_second` counts
    time steps of sequences, leaving out the time that validation and saving took.
    """

    kind: Literal["training"] = "training"
    step: Count
    epoch: NotNegative
    loss: float
    learning_rate: NotNegative
    gradient_norm: NotNegative
    tokens_per_second: NotNegative
    wall_seconds: NotNegative


class ValidationLine(Strict):
    """Scores on the rows held out of the training split; `weights` says whether they are the averaged ones."""

    kind: Literal["validation"] = "validation"
    step: Count
    epoch: NotNegative
    weights: Literal["trained", "averaged"]
    accuracy: Annotated[float, Field(ge=0, le=1)]
    cross_entropy: NotNegative
    wall_seconds: NotNegative


LogLine = Annotated[TrainingLine | ValidationLine, Field(discriminator="kind")]
_LINE: TypeAdapter[TrainingLine | ValidationLine] = TypeAdapter(LogLine)


def parse_line(text: str) -> TrainingLine | ValidationLine:
    """One line of a log.

    Raises:
        ValidationError: The line is not JSON, or not of the schema.
    """
    return _LINE.validate_json(text)


def write_log(path: Path, lines: Sequence[TrainingLine | ValidationLine]) -> None:
    """Replace the log at `path` by `lines`.

    The whole file is written each time: a run that goes on from an earlier state then leaves no line of steps that
    were lost, and the log is short (some hundred lines).
    """
    write_text(path, "".join(json.dumps(line.model_dump()) + "\n" for line in lines))


def read_log(path: Path) -> list[TrainingLine | ValidationLine]:
    """The lines of the log at `path`.

    Raises:
        CheckpointError: The file cannot be read or a line is malformed; the message names the line.
    """
    lines = []
    for number, text in enumerate(read_text(path, error=CheckpointError).splitlines(), start=1):
        try:
            lines.append(parse_line(text))
        except ValidationError as failure:
            raise CheckpointError(f"{path} line {number}: {describe(failure)}") from failure
    return lines
