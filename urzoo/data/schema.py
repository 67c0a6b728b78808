"""What a data set file (`sets/<name>.yaml`) holds: where the data live on the Hub, their columns, their digests."""

from functools import cache
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from urzoo.errors import DataError, UsageError, unknown
from urzoo.files import packaged
from urzoo.schema import Line, Name, Positive, Seed, Sha256, Strict, read_yaml, validated

SETS_FOLDER = Path(__file__).parent / "sets"


class ImageColumn(Strict):
    """Encoded images, all of one size; decoded to uint8, `(rows, height, width)` or `(rows, height, width, 3)`."""

    kind: Literal["image"]
    height: Positive
    width: Positive
    channels: Literal[1, 3]


class LabelColumn(Strict):
    """Class numbers, decoded to int64; -1 stands for "not labelled" where `unlabelled` is true."""

    kind: Literal["label"]
    classes: Annotated[list[Line], Field(min_length=2)]
    unlabelled: bool = False

    @model_validator(mode="after")
    def _different_classes(self) -> Self:
        if len(set(self.classes)) < len(self.classes):
            raise ValueError("two classes have one name")
        return self


class TextColumn(Strict):
    """Text in UTF-8, decoded to a list of str."""

    kind: Literal["text"]


class SequenceColumn(Strict):
    """Sequences of vectors, decoded to a list of float32 arrays `(time, channels)`."""

    kind: Literal["sequence"]
    channels: Positive


Column = Annotated[ImageColumn | LabelColumn | TextColumn | SequenceColumn, Field(discriminator="kind")]


def _one_of_a_kind(columns: dict[str, Column]) -> dict[str, Column]:
    found: dict[str, str] = {}
    for name, column in columns.items():
        if (other := found.setdefault(column.kind, name)) != name:
            encode = "; labels are numbers (datasets: class_encode_column)" if column.kind == "text" else ""
            raise ValueError(
                f"{other!r} and {name!r} are both of kind {column.kind}; leave one out of the data{encode}"
            )
    return columns


Columns = Annotated[dict[Name, Column], Field(min_length=1), AfterValidator(_one_of_a_kind)]
"""The columns of a data set by name, which are found by their kinds."""


class Part(Strict):
    """Some rows of a split that its publisher did not divide: what `hold_out` holds out of the file, or the rest."""

    file: Name
    file_rows: Positive
    held_out_rows: Positive
    seed: Seed
    take: Literal["held_out", "rest"]


class SplitSpec(Strict):
    """The number of rows of a split, the digest of its decoded content (`digest.py`), and its files on the Hub.

    `digest` is null where the content was never at hand to compute it: then only the rows are compared, the Hub's files
    are pinned by `DataSet.revision`, and the split is for training alone. `order_digest` pins the order of the rows
    too, where a figure depends on it: where they are read as one text.
    """

    rows: Positive
    digest: Sha256 | None
    order_digest: Sha256 | None = None
    hub_files: Positive = 1
    part: Part | None = None


class Generator(Strict):
    """Data that are drawn by a function of `generate.py` from a seed; `length` is the number of steps."""

    kind: Literal["copy", "adding"]
    length: Annotated[int, Field(ge=21)]
    seed: Seed


class DataSet(Strict):
    """A data set file: one configuration of one Hub data set repository.

    `revision` is the repository's commit on the Hub, and null for data that are not there; `obtain` says where else
    such data come from, `generator` how they are drawn. The digests decide in any case.
    """

    name: Name
    title: Line
    repository: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]+/[A-Za-z0-9._-]+$")]
    revision: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}$")] | None
    obtain: Line | None
    generator: Generator | None = None
    config: Name
    licence: Line
    citation: Line
    columns: Columns
    splits: Annotated[dict[Name, SplitSpec], Field(min_length=1)]

    def pinned_digest(self, split: str) -> str:
        """The digest of a split, which figures that are reported on it are tied to.

        Raises:
            DataError: It is not known.
        """
        digest = self.splits[split].digest
        if digest is None:
            raise DataError(
                f"split {split!r} of {self.name} has no digest in {self.name}.yaml; it is for training only."
            )
        return digest

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if sum(source is not None for source in (self.revision, self.obtain, self.generator)) != 1:
            raise ValueError("one of revision, obtain and generator must be given")
        return self


class LocalDataSet(DataSet):
    """A user's own data set, in a folder of its own; see `local.py`."""

    folder: Annotated[Path, Field(exclude=True)]


LOCAL: dict[str, DataSet] = {}
"""The data sets of the user's that were named by path, by name."""


def data_sets() -> list[str]:
    """The names of all data sets, sorted."""
    return [path.stem for path in packaged(SETS_FOLDER, "*.yaml")]


@cache
def load_data_set(name: str) -> DataSet:
    """The description of the data set called `name`.

    Raises:
        UsageError: There is no such data set; the message has near matches.
    """
    if name in LOCAL:
        return LOCAL[name]
    known = data_sets()
    if name not in known:
        raise UsageError(unknown("data set", name, known))
    path = SETS_FOLDER / f"{name}.yaml"
    return validated(DataSet, read_yaml(path, error=DataError), path.name, error=DataError)
