"""The published figures shown beside the measured ones, read from published.yaml.

Strict, so that a figure cannot appear without saying where it was printed: every key is checked, every
row names a source that the file describes, and no figure stands twice.
"""

from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, StringConstraints, model_validator

from urzoo.errors import UrzooError, unknown
from urzoo.recurrence.gates import GATINGS
from urzoo.schema import Line, Name, Positive, Strict, read_yaml, validated

PUBLISHED_FILE = Path(__file__).parent / "published.yaml"

Figure = Annotated[str, StringConstraints(pattern=r"^\d+(\.\d+)?$")]
ArxivId = Annotated[str, StringConstraints(pattern=r"^\d{4}\.\d{5}$")]


def _known_gating(name: str) -> str:
    if name not in GATINGS:
        raise ValueError(unknown("gate", name, GATINGS))
    return name


class Source(Strict):
    """A paper or page that prints figures; `secondary` where it repeats figures of others without saying from where."""

    label: Line
    title: Line
    authors: Line
    arxiv: ArxivId
    secondary: bool = False


class Published(Strict):
    """One published figure; `value` is the text its source prints, so that 99.20 stays 99.20."""

    task: Name
    model: Line
    metric: Name
    value: Figure
    unit: Literal["%", "per word", "fraction"]
    source: Name
    table: Line | None = None
    listed_by: tuple[Name, ...] = ()
    cell: Literal["lstm", "gru"] | None = None
    gate: Annotated[str, AfterValidator(_known_gating)] | None = None
    hidden_size: Positive | None = None
    parameters: Positive | None = None
    note: Line | None = None


class PublishedFile(Strict):
    """All of published.yaml."""

    sources: dict[Name, Source]
    titles: dict[Name, Line]
    metrics: dict[Name, Line]
    rows: tuple[Published, ...]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        seen = set()
        for row in self.rows:
            what = f"{row.model} on {row.task}"
            for name in (row.source, *row.listed_by):
                if name not in self.sources:
                    raise ValueError(f"{what} names the source {name!r}, which is not described")
            if row.task not in self.titles:
                raise ValueError(f"{what}: the task has no title")
            if row.metric not in self.metrics:
                raise ValueError(f"{what}: the metric has no title")
            identity = (row.task, row.model, row.metric, row.source)
            if identity in seen:
                raise ValueError(f"{what} from {row.source} stands twice")
            seen.add(identity)
        return self

    def listed(self, row: Published) -> str:
        """Where a reader finds the figure, in a few words: "S4 paper Table 12"."""
        source = self.sources[row.source].label
        listed = f"{source} {row.table}" if row.table else source
        return "; also ".join([listed, *(self.sources[name].label for name in row.listed_by)])


def parse_published(content: Any, source: object) -> PublishedFile:
    """Published figures from what a YAML file held.

    Raises:
        UrzooError: A key is missing, unknown or of the wrong kind, a row names a source that is not
            described, or a figure stands twice.
    """
    return validated(PublishedFile, content, source, error=UrzooError)


@cache
def read_published() -> PublishedFile:
    """The published figures that come with the package."""
    return parse_published(read_yaml(PUBLISHED_FILE, error=UrzooError), PUBLISHED_FILE.name)
