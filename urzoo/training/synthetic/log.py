"""The learning log of a run on a stream: one JSON object a line, as `urzoo.training.log` writes it for data sets.

`epoch` is the part of the run's stream that has been seen, from 0 to 1, so that readers of logs have the same key
in both.
"""

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


class StreamTrainingLine(Strict):
    """The mean loss of the steps since the line before; `tokens_per_second` counts time steps of sequences."""

    kind: Literal["training"] = "training"
    step: Count
    epoch: NotNegative
    loss: float
    learning_rate: NotNegative
    gradient_norm: NotNegative
    tokens_per_second: NotNegative
    wall_seconds: NotNegative


class StreamValidationLine(Strict):
    """Scores on the validation sequences: accuracy and cross-entropy (copy), or mean squared error (adding)."""

    kind: Literal["validation"] = "validation"
    step: Count
    epoch: NotNegative
    accuracy: Annotated[float, Field(ge=0, le=1)] | None = None
    cross_entropy: NotNegative | None = None
    mean_squared_error: NotNegative | None = None
    wall_seconds: NotNegative

    @property
    def scores(self) -> dict[str, float]:
        """The metrics by name."""
        values = {name: getattr(self, name) for name in ("accuracy", "cross_entropy", "mean_squared_error")}
        return {name: value for name, value in values.items() if value is not None}


StreamLine = StreamTrainingLine | StreamValidationLine
_LINE: TypeAdapter[StreamLine] = TypeAdapter(Annotated[StreamLine, Field(discriminator="kind")])


def write_stream_log(path: Path, lines: Sequence[StreamLine]) -> None:
    """Replace the log at `path` by `lines`."""
    write_text(path, "".join(json.dumps(line.model_dump(exclude_none=True)) + "\n" for line in lines))


def read_stream_log(path: Path) -> list[StreamLine]:
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
