"""The batches an evaluation has finished, on disk, so that an interrupted one goes on where it stopped.

A journal is a file of records that is only ever appended to: a length, a sha256, and the numpy arrays of one batch
(no pickles). A record that a kill cut short fails its sha256 and is cut off on the next start; those before it
stand. The first record names what was being evaluated: a journal of anything else is thrown away.

The lock beside it lets one evaluation of a pair run at a time. For a result `<task>.json` the files are
`.<task>.lock.part` and `.<task>.<process>.journal.part`: each process of a distributed evaluation writes its own
journal and reads those of all.
"""

import contextlib
import fcntl
import hashlib
import io
import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np
import numpy.typing as npt

from urzoo.errors import ResultError, UrzooError

Outputs = dict[str, npt.NDArray[Any]]
_HEAD = struct.Struct("<Q32s")
_LARGEST_RECORD_BYTES = 1 << 32


class Journal:
    """The finished batches of one process, by number; a context that closes the file and keeps it."""

    def __init__(self, path: Path, fingerprint: str) -> None:
        """Open the journal at `path`, keeping its records if they are of the evaluation called `fingerprint`.

        Raises:
            UrzooError: The file cannot be opened or written.
        """
        self.path = path
        self._fingerprint = fingerprint
        with _as_urzoo_error(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file: BinaryIO = path.open("a+b")
            self._restore()

    def append(self, batch: int, outputs: Outputs) -> None:
        """Add a finished batch; it is on the disk when this returns.

        Raises:
            UrzooError: The disk is full or the file cannot be written; the records before this one stand.
        """
        with _as_urzoo_error(self.path):
            self._write({"batch": np.int64(batch), **{f"output_{name}": values for name, values in outputs.items()}})

    def __enter__(self) -> Self:
        """The journal itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file; its records stay for the next start."""
        self._file.close()

    def _restore(self) -> None:
        """Cut off what is not whole, or everything if it is of another evaluation."""
        self._file.seek(0)
        good = 0
        for record, end in _records(self._file):
            if good == 0 and str(record.get("fingerprint")) != self._fingerprint:
                break
            good = end
        self._file.truncate(good)
        if good == 0:
            self._write({"fingerprint": np.array(self._fingerprint)})

    def _write(self, record: Mapping[str, Any]) -> None:
        buffer = io.BytesIO()
        np.savez(buffer, **record)
        content = buffer.getvalue()
        self._file.write(_HEAD.pack(len(content), hashlib.sha256(content).digest()) + content)
        self._file.flush()
        os.fsync(self._file.fileno())


@dataclass(frozen=True)
class JournalFiles:
    """Where the processes of one evaluation keep their journals, and its lock."""

    folder: Path
    task: str

    @property
    def lock(self) -> Path:
        """The lock file of the pair."""
        return self.folder / f".{self.task}.lock.part"

    def path(self, process: int) -> Path:
        """The journal of a process, by its number."""
        return self.folder / f".{self.task}.{process}.journal.part"

    def all(self) -> list[Path]:
        """The journals that exist."""
        return sorted(self.folder.glob(f".{self.task}.*.journal.part"))

    def finished(self, fingerprint: str) -> dict[int, Outputs]:
        """The batches in all journals that are of the evaluation called `fingerprint`, by number."""
        batches: dict[int, Outputs] = {}
        for path in self.all():
            with _as_urzoo_error(path), path.open("rb") as file:
                for number, (record, _) in enumerate(_records(file)):
                    if number == 0 and str(record.get("fingerprint")) != fingerprint:
                        break
                    if number > 0:
                        batches[int(record["batch"])] = _outputs(record)
        return batches

    def discard(self, process: int | None = None) -> None:
        """Remove one process's journal, or all and what a kill left of files being written: the result is kept."""
        all_files = set(self.folder.glob(f".{self.task}.*.part")) - {self.lock}
        for path in all_files if process is None else [self.path(process)]:
            with _as_urzoo_error(path):
                path.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Hold the lock file at `path` while in the context; the system frees it however the process ends.

    Raises:
        ResultError: Another process holds it; `what` says in words what that one is doing.
        UrzooError: The file cannot be made.
    """
    file = _lock(path, what)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        file.close()


def _lock(path: Path, what: str) -> BinaryIO:
    while True:
        with _as_urzoo_error(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("a+b")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as failure:
            file.close()
            raise ResultError(f"another process is {what}; wait for it, or name another results folder.") from failure
        # The former holder may have removed the file between our opening and locking it: then ours locks nothing.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        file.close()


def _outputs(record: Outputs) -> Outputs:
    return {name.removeprefix("output_"): values for name, values in record.items() if name.startswith("output_")}


def _records(file: BinaryIO) -> Iterator[tuple[Outputs, int]]:
    """The whole records from the file's position on, each with the position behind it."""
    while True:
        head = file.read(_HEAD.size)
        if len(head) < _HEAD.size:
            return
        length, digest = _HEAD.unpack(head)
        if length > _LARGEST_RECORD_BYTES:
            return
        content = file.read(length)
        if hashlib.sha256(content).digest() != digest:
            return
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            yield dict(arrays), file.tell()


@contextlib.contextmanager
def _as_urzoo_error(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as failure:
        raise UrzooError(
            f"cannot write {path}: {failure.strerror or failure}. Name another results folder."
        ) from failure
