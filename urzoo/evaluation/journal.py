"""The batches an evaluation has finished, on disk, so that an interrupted one goes on where it stopped.

A journal is a folder with one `.npz` a batch, `<batch>.npz`, written in one step; its name tells what is being
evaluated, and a journal of anything else is thrown away. The processes of a distributed evaluation share it, or have
one each on machines of their own. A file whose content fails its checksum counts for nothing.

The lock beside it lets one evaluation of a pair run at a time. For a result `<task>.json` the names are
`.<task>.lock.part` and `.<task>.<fingerprint>.journal.part`.
"""

import contextlib
import io
import re
import shutil
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from filelock import FileLock, Timeout

from urzoo.errors import ResultError, UrzooError
from urzoo.files import write_bytes

Outputs = dict[str, npt.NDArray[Any]]
# What numpy and zipfile say of a damaged file.
_DAMAGE = (ValueError, OSError, EOFError, KeyError, RuntimeError, NotImplementedError, zipfile.BadZipFile)


@dataclass(frozen=True)
class Journal:
    """Where the finished batches of one evaluation are kept, and its lock.

    Attributes:
        folder: The folder of the result.
        task: The task's name.
    """

    folder: Path
    task: str

    @property
    def lock(self) -> Path:
        """The lock file of the pair."""
        return self.folder / f".{self.task}.lock.part"

    def batches(self, fingerprint: str) -> dict[int, Outputs]:
        """The finished batches of the evaluation called `fingerprint`, by number."""
        found = {}
        for path in sorted(self._place(fingerprint).glob("[0-9]*.npz")):
            with contextlib.suppress(*_DAMAGE), np.load(io.BytesIO(path.read_bytes())) as arrays:
                found[int(path.stem)] = dict(arrays)
        return found

    def add(self, fingerprint: str, batch: int, outputs: Outputs) -> None:
        """Keep a finished batch; it is on the disk when this returns.

        Raises:
            UrzooError: The disk is full or the file cannot be written; the batches before this one stand.
        """
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **outputs)
        write_bytes(self._place(fingerprint) / f"{batch:06d}.npz", buffer.getvalue())

    def discard(self, *, but: str | None = None) -> None:
        """Remove the batches of every evaluation but the one called `but`, and what a kill left of files being written.

        The result is kept.
        """
        # No others: of a task `digits.two` there may be an evaluation beside that of `digits`.
        own = rf"\.{re.escape(self.task)}\.((json|predictions\.parquet)\.\w+|\w+\.journal)\.part"
        kept = None if but is None else self._place(but)
        for path in self.folder.glob(".*.part"):
            if path == kept or not re.fullmatch(own, path.name):
                continue
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)

    def _place(self, fingerprint: str) -> Path:
        return self.folder / f".{self.task}.{fingerprint[:16]}.journal.part"


@contextlib.contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Hold the lock file at `path` while in the context; the system frees it however the process ends.

    Raises:
        ResultError: Another process holds it; `what` says in words what that one is doing.
        UrzooError: The file cannot be made.
    """
    lock = FileLock(path, timeout=0)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as failure:
        raise ResultError(f"another process is {what}; wait for it, or name another results folder.") from failure
    except OSError as failure:
        raise UrzooError(
            f"cannot write {path}: {failure.strerror or failure}. Name another results folder."
        ) from failure
    try:
        yield
    finally:
        # While it is held: whoever opened the file before finds, once it has the lock, that it was removed.
        path.unlink(missing_ok=True)
        lock.release()
