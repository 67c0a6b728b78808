"""Writing files so that a reader finds the old content or the new, never a part of either.

Every file urzoo writes goes through here: the content is written to a temporary file in the same
folder, flushed to the disk and renamed over the target. An interruption, a full disk or a kill
leaves the target as it was; the temporary file is removed where the process lives to do so.
"""

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from urzoo.errors import UrzooError

# The process's umask can only be read by setting it: done once, at import, before there are threads.
_UMASK = os.umask(0o022)
os.umask(_UMASK)


def write_bytes(path: Path, content: bytes) -> None:
    """Replace the file at `path` by `content` in one step, creating its folder if needed.

    Raises:
        UrzooError: The folder cannot be written to, or the disk is full; `path` is as it was.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _temporary_beside(path) as temporary:
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        _flush_folder(path.parent)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UrzooError(f"cannot write {path}: {reason}. Nothing was changed; name another folder.") from error


def write_text(path: Path, content: str) -> None:
    """Replace the file at `path` by `content` in UTF-8 with Unix line ends, in one step."""
    write_bytes(path, content.encode("utf-8"))


def write_json(path: Path, content: Any) -> None:
    """Replace the file at `path` by `content` as indented JSON, keys in the given order, in one step.

    NaN and infinities are refused with ValueError: JSON has no such numbers.
    """
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


@contextlib.contextmanager
def _temporary_beside(path: Path) -> Iterator[Path]:
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name[:80]}.", suffix=".part", dir=path.parent)
    os.close(descriptor)
    temporary = Path(name)
    try:
        # mkstemp makes files private to the user; what is published follows the umask like any other file.
        temporary.chmod(0o666 & ~_UMASK)
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _flush_folder(folder: Path) -> None:
    """Make a rename durable; not every platform lets a folder be opened, and then it is as durable as it gets."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path` that takes its place when the block ends without an exception.

    Whoever looks for `path` finds the old folder or the new one, complete and flushed to the disk; between the two
    renames there is an instant without either. After an exception or a kill `path` is as it was; what a kill leaves
    behind is a hidden folder whose name ends in `.part`.

    Raises:
        UrzooError: The folder cannot be written to, or the disk is full.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        holder = Path(tempfile.mkdtemp(prefix=f".{path.name[:80]}.", suffix=".part", dir=path.parent))
        try:
            content = holder / "new"
            content.mkdir()
            yield content
            for file in sorted(content.rglob("*")):
                if file.is_file():
                    _flush_file(file)
            _swap(content, path, holder / "old")
        finally:
            shutil.rmtree(holder, ignore_errors=True)
        _flush_folder(path.parent)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UrzooError(f"cannot write {path}: {reason}. Nothing was changed; name another folder.") from error


def _swap(new: Path, path: Path, old: Path) -> None:
    """Rename `new` to `path`, moving what is there to `old` first; put it back if that fails."""
    if not path.exists():
        new.rename(path)
        return
    path.rename(old)
    try:
        new.rename(path)
    except OSError:
        old.rename(path)
        raise


def _flush_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
