"""Splits of data sets: verified, decoded, and ready as plain arrays.

A split is accepted only if its number of rows and the digest of its decoded content are those that the
data set's file pins, whatever the source, so that figures from any source can be compared.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from urzoo.data.decode import decode
from urzoo.data.digest import content_digest, order_digest
from urzoo.data.generate import generate
from urzoo.data.schema import DataSet, LocalDataSet, load_data_set
from urzoo.data.sources import Source, chosen_root, find, why_lacking
from urzoo.errors import DataError, UsageError, unknown

if TYPE_CHECKING:
    import datasets

ColumnKind = Literal["image", "label", "text", "sequence"]


@dataclass(frozen=True, eq=False)
class Split:
    """The rows of a split, or some of them.

    Attributes:
        data_set: The description of the data set; `data_set.name` and `data_set.config` say what it is.
        split: The split's name.
        digest: The verified digest of the whole split, also where only some of its rows are here.
        source: Where the rows came from: "data root", "shipped", "Hub", "generated" or "local".
        columns: The decoded columns by name; for the forms see `digest.py`. They are not to be written to.
    """

    data_set: DataSet
    split: str
    digest: str
    source: Source
    columns: dict[str, npt.NDArray[Any] | list[Any]]

    @property
    def name(self) -> str:
        """The data set's name."""
        return self.data_set.name

    @property
    def rows(self) -> int:
        """The number of rows here."""
        return len(next(iter(self.columns.values())))

    @property
    def images(self) -> npt.NDArray[np.uint8]:
        """The images, `(rows, height, width)` if grey, `(rows, height, width, 3)` in colour."""
        images = self._column("image")
        assert isinstance(images, np.ndarray)
        return images

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """The class numbers, `(rows,)`."""
        labels = self._column("label")
        assert isinstance(labels, np.ndarray)
        return labels

    def refuse_unlabelled(self, what: str) -> None:
        """Refuse rows without a label (-1); `what` says in words what is wanted in their place.

        Raises:
            DataError: There is one; the message has its number.
        """
        if len(unlabelled := (self.labels < 0).nonzero()[0]):
            raise DataError(f"{self.name} ({self.split}) has a row without a label, {unlabelled[0]}; {what}.")

    @property
    def classes(self) -> list[str]:
        """The names of the classes, in the order of their numbers."""
        return next(column.classes for column in self.data_set.columns.values() if column.kind == "label")

    @property
    def texts(self) -> list[str]:
        """The texts."""
        return list(self._column("text"))

    @property
    def sequences(self) -> list[npt.NDArray[np.float32]]:
        """The sequences, each `(time, channels)`."""
        return list(self._column("sequence"))

    def select(self, rows: npt.NDArray[np.int64]) -> "Split":
        """The rows with the given numbers, in the given order."""
        columns = {
            name: column[rows] if isinstance(column, np.ndarray) else [column[row] for row in rows.tolist()]
            for name, column in self.columns.items()
        }
        return replace(self, columns=columns)

    def to_dataset(self) -> "datasets.Dataset":
        """The rows as a `datasets.Dataset` with the Hub's column names and types."""
        import datasets

        features: dict[str, Any] = {}
        for name, column in self.data_set.columns.items():
            features[name] = {
                "image": datasets.Image(),
                "text": datasets.Value("string"),
                "sequence": datasets.List(datasets.List(datasets.Value("float32"))),
                "label": None,
            }[column.kind]
            if column.kind == "label":
                features[name] = datasets.ClassLabel(names=column.classes)
        return datasets.Dataset.from_dict(
            {name: list(column) for name, column in self.columns.items()}, features=datasets.Features(features)
        )

    def _column(self, kind: ColumnKind) -> npt.NDArray[Any] | list[Any]:
        for name, column in self.data_set.columns.items():
            if column.kind == kind:
                return self.columns[name]
        raise UsageError(f"data set {self.name!r} has no {kind} column; it has {', '.join(self.data_set.columns)}.")


def lacking(name: str, split: str, *, data_root: Path | str | None = None) -> str:
    """Why a split cannot be had and how to get it, in one line, or an empty text if it is at hand or on the Hub.

    Nothing is fetched or verified; the arguments are those of `load_split`.

    Raises:
        UsageError: The data set, the split or the data root is not one.
        DataError: A folder holds some of the split's files and lacks others.
    """
    return why_lacking(_known(name, split), split, chosen_root(data_root))


def load_split(name: str, split: str, *, data_root: Path | str | None = None) -> Split:
    """A split of a data set, verified.

    Args:
        name: The data set; one of `data_sets()`.
        split: The split; "train", "test" or whatever the data set has.
        data_root: A folder in the Hub's layout that is looked at first; the environment's `URZOO_DATA_ROOT` when
            omitted.

    Raises:
        UsageError: The data set, the split or the data root is not one.
        DataMissing: The split is at none of its sources.
        DataError: What was found is damaged, or is not the content that the data set's file pins.
    """
    data_set = _known(name, split)
    spec = data_set.splits[split]
    root = chosen_root(data_root)
    if data_set.generator is not None:
        where = "what was generated"
        loaded = Split(data_set, split, "", "generated", generate(data_set.generator, spec.rows))
    else:
        found = find(data_set, split, root)
        where = str(found.files[0] if len(found.files) == 1 else found.files[0].parent)
        loaded = Split(data_set, split, "", found.source, decode(found.files, data_set))
    rows = spec.rows if spec.part is None else spec.part.file_rows
    if loaded.rows != rows:
        raise DataError(f"{where} has {loaded.rows} rows, expected {rows} in split {split!r} of {name}.")
    if spec.part is not None:
        rest, held_out = hold_out(loaded, spec.part.held_out_rows, spec.part.seed)
        loaded = held_out if spec.part.take == "held_out" else rest
    digest = content_digest(loaded.columns)
    renew = ""
    if isinstance(data_set, LocalDataSet):
        renew = f" If it was changed on purpose: urzoo data digest {data_set.folder} renews its dataset.yaml."
    if spec.digest is not None and digest != spec.digest:
        raise DataError(
            f"{where} is not split {split!r} of {name}: its content has digest {digest}, expected {spec.digest}.{renew}"
        )
    if spec.order_digest is not None and order_digest(loaded.columns) != spec.order_digest:
        raise DataError(
            f"{where} has the rows of {name} ({split}) in another order, on which figures of a text depend.{renew}"
        )
    for column in loaded.columns.values():
        if isinstance(column, np.ndarray):
            column.setflags(write=False)
    return replace(loaded, digest=digest)


def _known(name: str, split: str) -> DataSet:
    data_set = load_data_set(name)
    if split not in data_set.splits:
        raise UsageError(unknown(f"split of data set {name!r}", split, data_set.splits))
    return data_set


def hold_out(split: Split, rows: int, seed: int) -> tuple[Split, Split]:
    """Set `rows` rows apart as a validation part, the same for the same arguments everywhere.

    Each class gives its share of `rows` (largest remainders get the odd ones); the rows of a class are drawn by
    numpy's RandomState(seed), classes in order. Both parts keep the split's order. A split without labels counts as
    one class.

    Args:
        split: What to divide; never a test split that figures are reported on.
        rows: Size of the validation part, at least 1 and fewer than the split's rows.
        seed: Seed of the draw.

    Returns:
        The training part and the validation part.
    """
    if not 1 <= rows < split.rows:
        raise UsageError(f"rows to hold out is {rows}, expected 1 to {split.rows - 1} of the {split.rows} rows.")
    labelled = any(column.kind == "label" for column in split.data_set.columns.values())
    labels = split.labels if labelled else np.zeros(split.rows, dtype=np.int64)
    classes, counts = np.unique(labels, return_counts=True)
    shares = counts * rows / split.rows
    taken = np.floor(shares).astype(np.int64)
    odd = np.argsort(taken - shares, kind="stable")[: rows - int(taken.sum())]
    taken[odd] += 1
    draw = np.random.RandomState(seed)
    held = np.zeros(split.rows, dtype=bool)
    for label, count in zip(classes, taken, strict=True):
        held[draw.permutation(np.flatnonzero(labels == label))[:count]] = True
    return split.select(np.flatnonzero(~held)), split.select(np.flatnonzero(held))
