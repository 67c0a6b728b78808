"""A user's own data: a folder of parquet files and a `dataset.yaml` beside them, used by path.

    digits/dataset.yaml      columns, and rows and digest of every split, as `urzoo data digest digits` writes them
    digits/train.parquet     or train-00000-of-00002.parquet and train-00001-of-00002.parquet
    digits/test.parquet

For as long as the process lives such a data set is found by its name, like those of the package. Results on it are
marked as local.
"""

import io
import json
import re
import warnings
from collections.abc import Sized
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from PIL import Image, ImageOps
from pydantic import Field

from urzoo.data import schema
from urzoo.data.decode import decode
from urzoo.data.digest import content_digest, order_digest
from urzoo.data.schema import Columns, DataSet, LabelColumn, LocalDataSet, SplitSpec
from urzoo.data.sources import own_files
from urzoo.errors import DataError, UsageError, one_line
from urzoo.schema import Line, Name, Strict, read_yaml, validated

if TYPE_CHECKING:
    import pyarrow as pa

DESCRIPTION = "dataset.yaml"
_MOST_CLASSES = 10_000
_FILE = re.compile(r"([A-Za-z0-9][A-Za-z0-9._+]*?)(-\d{5}-of-\d{5})?\.parquet")


class Description(Strict):
    """The content of a `dataset.yaml`."""

    name: Name
    title: Line | None = None
    licence: Line = "not stated"
    citation: Line = "not stated"
    columns: Columns
    splits: Annotated[dict[Name, SplitSpec], Field(min_length=1)]


def register(folder: Path) -> DataSet:
    """Have the data set in `folder` found by its name from now on, and return its description.

    Raises:
        DataError: The folder has no valid `dataset.yaml`, or its name is that of a data set of the package.
    """
    file = folder / DESCRIPTION
    if not file.is_file():
        raise DataError(f"there is no {file}; make it with: urzoo data digest {folder}")
    described = validated(Description, read_yaml(file, error=DataError), file, error=DataError)
    if described.name in schema.data_sets():
        raise DataError(f"{file}: key name is {described.name!r}, a data set of urzoo's; give it another name.")
    data_set = _data_set(described, folder)
    schema.LOCAL[data_set.name] = data_set
    schema.load_data_set.cache_clear()
    return data_set


def _data_set(described: Description, folder: Path) -> DataSet:
    return LocalDataSet(
        name=described.name,
        title=described.title or described.name,
        repository=f"local/{described.name}",
        revision=None,
        obtain=f"put it into {folder}",
        config="default",
        licence=described.licence,
        citation=described.citation,
        columns=described.columns,
        splits=described.splits,
        folder=folder.absolute(),
    )


def describe(folder: Path) -> dict[str, Any]:
    """What belongs into the `dataset.yaml` of a folder of parquet files: columns as found, rows and digests.

    Classes have the names that `datasets` has written into the file, and else their numbers; no digest depends on them.
    What a `dataset.yaml` that is there already calls them stays, and so do its name, title, licence and citation.

    Raises:
        UsageError: There are no parquet files, or one is called after no split.
        DataError: Splits have different columns, a column is of no kind of urzoo's, or a split lacks files or is there
            twice; or the `dataset.yaml` is malformed, or calls classes by each other's names.
    """
    names: dict[str, None] = {}
    for path in sorted(folder.glob("*.parquet")):
        if (named := _FILE.fullmatch(path.name)) is None:
            raise UsageError(
                f"{path} is called after no split; expected such as test.parquet or test-00000-of-00002.parquet, "
                "without another hyphen. Rename it or put it elsewhere."
            )
        names[named[1]] = None
    if not names:
        raise UsageError(f"{folder} holds no parquet file; expected one a split, such as {folder / 'test.parquet'}.")
    splits = {split: own_files(folder, split) for split in names}
    columns = _columns([path for paths in splits.values() for path in paths])
    # A name is wanted before there is a description; it is the folder's.
    content: dict[str, Any] = {"name": re.sub(r"[^A-Za-z0-9._+-]+", "-", folder.resolve().name).strip("-._") or "data"}
    file = folder / DESCRIPTION
    if file.is_file() and file.stat().st_size:
        written = validated(Description, read_yaml(file, error=DataError), file, error=DataError)
        content |= written.model_dump(include={"name", "title", "licence", "citation"}, exclude_unset=True)
        _keep_class_names(columns, written.columns, file)
    content |= {"columns": columns, "splits": {}}
    for split, paths in splits.items():
        draft = {**content, "splits": {split: {"rows": 1, "digest": None}}}
        described = validated(Description, draft, folder, error=DataError)
        decoded = decode(paths, _data_set(described, folder))
        rows = len(next(iter(decoded.values())))
        content["splits"][split] = {"rows": rows, "digest": content_digest(decoded)}
        if any(column["kind"] == "text" for column in columns.values()):
            content["splits"][split]["order_digest"] = order_digest(decoded)
    return content


def _columns(paths: list[Path]) -> dict[str, Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    found: dict[str, Any] = {}
    for path in paths:
        try:
            table = pq.read_table(path)
        except (pa.ArrowException, OSError) as failure:
            raise DataError(f"{path} is damaged or no parquet file: {one_line(failure)}.") from failure
        if not table.num_rows:
            raise DataError(f"{path} has no rows.")
        names = _class_names(table)
        columns = {name: _column(table.column(name), name, names.get(name), path) for name in table.column_names}
        for name, column in columns.items():
            found[name] = _common(found.get(name, column), column, f"{path}: column {name!r}")
        if columns.keys() != found.keys():
            raise DataError(f"{path} has the columns {', '.join(columns)}; another file has {', '.join(found)}.")
    return found


def _column(values: "pa.ChunkedArray", name: str, classes: list[str] | None, path: Path) -> dict[str, Any]:
    import pyarrow as pa
    import pyarrow.compute as pc

    if values.null_count:
        raise DataError(f"{path} has {values.null_count} empty values in column {name!r}.")
    kind = values.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return {"kind": "text"}
    first = next((value for value in (one.as_py() for one in values) if value), None)
    if pa.types.is_struct(kind) or pa.types.is_binary(kind):
        encoded = first.get("bytes") if isinstance(first, dict) else first
        if encoded is None and first and first.get("path"):
            raise DataError(
                f"{path}: column {name!r} names files, such as {first['path']!r}, and does not hold them; have "
                "`datasets` put them in: "
                ".with_format('arrow').map(datasets.table.embed_table_storage, batched=True).to_parquet(...)"
            )
        try:
            with Image.open(io.BytesIO(encoded or b"")) as image:
                ImageOps.exif_transpose(image, in_place=True)
                channels = 1 if image.mode == "L" else 3
                return {"kind": "image", "height": image.height, "width": image.width, "channels": channels}
        except (OSError, TypeError, ValueError) as failure:
            raise DataError(f"{path}: column {name!r} holds no images: {one_line(failure)}.") from failure
    if pa.types.is_integer(kind):
        lowest, highest = pc.min(values).as_py(), pc.max(values).as_py()
        if classes is None and highest >= _MOST_CLASSES:
            raise DataError(
                f"{path}: column {name!r} goes to {highest}, expected numbers of classes below {_MOST_CLASSES}. Leave "
                "other columns out."
            )
        column: dict[str, Any] = {"kind": "label", "classes": classes or _numbers(range(max(highest + 1, 2)))}
        return column | ({"unlabelled": True} if lowest == -1 else {})
    if isinstance(first, list) and isinstance(first[0], list):
        return {"kind": "sequence", "channels": len(first[0])}
    raise DataError(
        f"{path}: column {name!r} is of type {kind}; expected images, whole numbers (classes), text, or lists of "
        "lists of numbers (time, channels). Leave other columns out."
    )


def _common(known: dict[str, Any], column: dict[str, Any], where: str) -> dict[str, Any]:
    """What describes a column in all files: where it holds labels, the most classes, which must be numbered alike.

    Raises:
        DataError: A number stands for one class here and for another there, as where each file was encoded by itself.
    """
    if not column["kind"] == "label" == known["kind"]:
        return known
    for number, (one, other) in enumerate(zip(column["classes"], known["classes"], strict=False)):
        if one != other:
            raise DataError(
                f"{where} calls class {number} {one!r}, another file {other!r}; a number must be one class in all "
                "files: encode them with one datasets.ClassLabel(names=[...])."
            )
    return {**known, **column, "classes": max(known["classes"], column["classes"], key=len)}


def _keep_class_names(columns: dict[str, Any], written: Columns, file: Path) -> None:
    """Call classes as a `dataset.yaml` does, in which somebody may have renamed them.

    Raises:
        DataError: It calls one by the name that the data give to another: they were numbered anew since.
    """
    for name, column in columns.items():
        known = written.get(name)
        if not isinstance(known, LabelColumn) or column["kind"] != "label" or known.classes == _numbers(known.classes):
            continue
        found, kept = column["classes"], known.classes
        column["classes"] = [*kept, *found[len(kept) :]]
        named = [] if found == _numbers(found) else found
        renamed = {one: other for one, other in zip(named, kept, strict=False) if one != other}
        if moved := next((one for one in renamed if one in kept), None):
            raise DataError(
                f"{file} calls class {kept.index(moved)} {moved!r}, which is {found.index(moved)} in the data; correct "
                "its classes, or remove it to take the names in the data."
            )
        if renamed:
            warnings.warn(f"{file} keeps its names of classes; by those in the data: {renamed}", stacklevel=3)


def _numbers(classes: Sized) -> list[str]:
    """What classes are called that have no names."""
    return [str(number) for number in range(len(classes))]


def _class_names(table: "pa.Table") -> dict[str, list[str]]:
    """The names of classes that `datasets` writes into its files."""
    written = (table.schema.metadata or {}).get(b"huggingface")
    if written is None:
        return {}
    try:
        features = json.loads(written)["info"]["features"]
        return {name: one["names"] for name, one in features.items() if isinstance(one, dict) and one.get("names")}
    except (AttributeError, LookupError, TypeError, ValueError):  # another program's
        return {}
