"""Where the bytes of a split come from: a data root, the package, the Hub's cache, the Hub; in this order.

A data root mirrors the Hub: `<root>/<owner>/<repository>/<config>/<split>-00000-of-00001.parquet`. Whether the
Hub can be reached is found out once per process, within `PROBE_SECONDS`: a machine without a network loses a few
seconds, not one time-out with retries per file.
"""

import os
import re
import threading
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple

from urzoo.data.schema import DataSet, LocalDataSet, data_sets, load_data_set
from urzoo.errors import DataError, UsageError, one_line
from urzoo.files import expanded

SHIPPED_FOLDER = Path(__file__).parent / "shipped"
PROBE_SECONDS = 6.0
Source = Literal["data root", "shipped", "Hub", "generated", "local"]
_SHARD = re.compile(r"-(\d{5})-of-(\d{5})\.parquet$")


class DataMissing(DataError):  # noqa: N818 - the name says what is the matter
    """A split is at none of its sources; the message says in one line where it was looked for and how to get it."""


class Found(NamedTuple):
    """The parquet files of a split and what kind of place they are from."""

    files: list[Path]
    source: Source


def chosen_root(data_root: Path | str | None) -> Path | None:
    """The data root to use: the argument, else `URZOO_DATA_ROOT`, else none.

    Raises:
        UsageError: It is not a folder, or holds none of the data sets that urzoo knows.
    """
    named = "data root" if data_root is not None else "URZOO_DATA_ROOT"
    value = data_root if data_root is not None else os.environ.get("URZOO_DATA_ROOT") or None
    if value is None:
        return None
    root = expanded(value)
    if not root.is_dir():
        raise UsageError(f"{named} {str(value)!r} is not a folder; expected one that holds ylecun/mnist and the like.")
    if not any((root / load_data_set(name).repository).is_dir() for name in data_sets()):
        raise UsageError(
            f"{named} {str(value)!r} holds no data set of urzoo's in the Hub's layout; expected files such as "
            f"{root / 'ylecun/mnist/mnist/test-00000-of-00001.parquet'}."
        )
    return root


def find(data_set: DataSet, split: str, data_root: Path | None) -> Found:
    """The parquet files of a split, fetched from the Hub where no nearer source has them.

    Raises:
        DataMissing: They are nowhere.
        DataError: A folder holds some of a split's files and lacks others.
    """
    if (found := _nearby(data_set, split, data_root)) is not None:
        return found
    if reason := why_lacking(data_set, split, data_root):
        raise DataMissing(reason)
    return Found(_from_hub(data_set, split), "Hub")


def why_lacking(data_set: DataSet, split: str, data_root: Path | None) -> str:
    """Why a split cannot be had and how to get it, or an empty text if it is at hand or the Hub can be asked.

    Raises:
        DataError: A folder holds some of a split's files and lacks others.
    """
    if data_set.generator is not None or _nearby(data_set, split, data_root) is not None:
        return ""
    if isinstance(data_set, LocalDataSet):
        return f"{data_set.folder} has no file {split}.parquet, which {data_set.name} has by its dataset.yaml."
    looked = "not shipped"
    if data_root is not None:
        looked = f"not under {data_root / data_set.repository / data_set.config}, {looked}"
    if data_set.revision is None:
        return (
            f"the {split} split of {data_set.name} is {looked}, and not on the Hub. To get it: {data_set.obtain} "
            f"Then name the folder that holds {data_set.repository}/ with --data-root or URZOO_DATA_ROOT."
        )
    if reason := hub_unreachable():
        fetch = (
            f"hf download {data_set.repository} --repo-type dataset --revision {data_set.revision} "
            f"--include '{data_set.config}/{_file_split(data_set, split)}-*' --local-dir DATA/{data_set.repository}"
        )
        return (
            f"the {split} split of {data_set.name} is {looked}, and the Hub cannot be reached ({reason}). "
            f"To get it, where it can be reached: {fetch}. Then name DATA with --data-root or URZOO_DATA_ROOT."
        )
    return ""


@cache
def hub_unreachable() -> str:
    """Why the Hub cannot be reached, or an empty text if it can. Asked once per process."""
    import httpx2
    from huggingface_hub import constants, get_session

    if constants.HF_HUB_OFFLINE or os.environ.get("HF_DATASETS_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}:
        return "offline by HF_HUB_OFFLINE or HF_DATASETS_OFFLINE"
    outcome: list[str] = []

    def probe() -> None:
        try:
            get_session().head(constants.ENDPOINT, timeout=PROBE_SECONDS)
            outcome.append("")
        # Of the network; of a proxy, certificates or an address that cannot be used.
        except (httpx2.HTTPError, httpx2.InvalidURL, ImportError, OSError, ValueError) as failure:
            outcome.append(one_line(failure, 100))

    # In a thread, because looking a name up knows no time-out of its own.
    thread = threading.Thread(target=probe, daemon=True)
    thread.start()
    thread.join(PROBE_SECONDS)
    return outcome[0] if outcome else f"no answer from {constants.ENDPOINT} within {PROBE_SECONDS:.0f} s"


def _nearby(data_set: DataSet, split: str, data_root: Path | None) -> Found | None:
    """What is there without a network."""
    if isinstance(data_set, LocalDataSet):
        files = own_files(data_set.folder, _file_split(data_set, split))
        return Found(files, "local") if files else None
    if data_root is not None and (files := _in_folder(data_root, data_set, split)):
        return Found(files, "data root")
    if files := _in_folder(SHIPPED_FOLDER, data_set, split):
        return Found(files, "shipped")
    if data_set.revision is not None and (files := _in_hub_cache(data_set, split)):
        return Found(files, "Hub")
    return None


def _in_folder(root: Path, data_set: DataSet, split: str) -> list[Path]:
    return _shards(root / data_set.repository / data_set.config, _file_split(data_set, split))


def _shards(folder: Path, split: str) -> list[Path]:
    files = sorted(path for path in folder.glob(f"{split}-*.parquet") if _SHARD.search(path.name))
    if files:
        shard = _SHARD.search(files[-1].name)
        assert shard is not None
        if len(files) != int(shard[2]):
            raise DataError(f"{folder} holds {len(files)} of the {int(shard[2])} files of split {split!r}.")
    return files


def own_files(folder: Path, split: str) -> list[Path]:
    """Those of a split of a user's own data, which may be one file without a number.

    Raises:
        DataError: The split is there in both forms, or some of its files are missing.
    """
    single, shards = folder / f"{split}.parquet", _shards(folder, split)
    if not single.is_file():
        return shards
    if shards:
        raise DataError(f"{folder} holds split {split!r} twice, as {single.name} and {shards[0].name}; remove one.")
    return [single]


def _file_split(data_set: DataSet, split: str) -> str:
    """The split that the files are named after."""
    part = data_set.splits[split].part
    return split if part is None else part.file


def _hub_files(data_set: DataSet, split: str) -> list[str]:
    count = data_set.splits[split].hub_files
    split = _file_split(data_set, split)
    return [f"{data_set.config}/{split}-{number:05d}-of-{count:05d}.parquet" for number in range(count)]


def _in_hub_cache(data_set: DataSet, split: str) -> list[Path]:
    from huggingface_hub import try_to_load_from_cache

    found = [
        try_to_load_from_cache(data_set.repository, name, revision=data_set.revision, repo_type="dataset")
        for name in _hub_files(data_set, split)
    ]
    return [Path(path) for path in found if isinstance(path, str)] if all(isinstance(x, str) for x in found) else []


def _from_hub(data_set: DataSet, split: str) -> list[Path]:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HTTPError  # its HTTP client's base error

    try:
        return [
            Path(hf_hub_download(data_set.repository, name, repo_type="dataset", revision=data_set.revision))
            for name in _hub_files(data_set, split)
        ]
    except (HTTPError, OSError, RuntimeError) as failure:  # the last by hf_xet, which it downloads with
        raise DataMissing(
            f"{data_set.name} ({split}) could not be fetched from {data_set.repository} on the Hub: "
            f"{one_line(failure)}. Try again, or name a folder that has it with --data-root or URZOO_DATA_ROOT."
        ) from failure
