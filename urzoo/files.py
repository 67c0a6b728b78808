"""Writing files so that a reader finds the old content or the new, never a part of either.

Every file urzoo writes goes through here: the content is written to a temporary file in the same
folder, flushed to the disk and renamed over the target. An interruption, a full disk or a kill
leaves the target as it was; the temporary file is removed where the process lives to do so.
"""

import contextlib
import errno
import glob
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import lock_descriptor
from safetensors import SafetensorError

from urzoo.errors import UrzooError, UsageError, one_line

# The process's umask can only be read by setting it: done once, at import, before there are threads.
_UMASK = os.umask(0o022)
os.umask(_UMASK)


def expanded(path: str | Path) -> Path:
    """`path` with a user's home in the place of a leading `~`.

    Raises:
        UsageError: There is no such user.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise UsageError(f"{str(path)!r} begins with the home of a user who is not known; write it out.") from None


def packaged(folder: Path, pattern: str) -> list[Path]:
    """Files of the package's own that match, sorted.

    Raises:
        UrzooError: The package is no folder of files, as where Python imports it from a zip file.
    """
    if not folder.is_dir():
        raise UrzooError(f"there is no folder {folder}; urzoo does not run from a zip file: install it with pip.")
    return sorted(folder.glob(pattern))


def write_bytes(path: Path, content: bytes) -> None:
    """Replace the file at `path` by `content` in one step, creating its folder if needed.

    Raises:
        UrzooError: The folder cannot be written to, or the disk is full; `path` is as it was.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with _temporary_beside(path) as temporary:
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        _flush_folder(path.parent)


def write_text(path: Path, content: str) -> None:
    """Replace the file at `path` by `content` in UTF-8 with Unix line ends, in one step."""
    write_bytes(path, content.encode("utf-8"))


def write_json(path: Path, content: Any) -> None:
    """Replace the file at `path` by `content` as indented JSON, keys in the given order, in one step.

    NaN and infinities are refused with ValueError: JSON has no such numbers.
    """
    write_text(path, json_text(content))


def json_text(content: Any) -> str:
    """What `write_json` writes."""
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def remove_file(path: Path) -> None:
    """Remove the file at `path`, which need not be there.

    Raises:
        UrzooError: It cannot be removed.
    """
    with writing(path):
        path.unlink(missing_ok=True)


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Replace several files of `folder`, by their paths in it; if one of them cannot be staged, none.

    What a kill leaves behind is a hidden folder, which the next call clears away.

    Raises:
        UrzooError: The folder cannot be written to, or the disk is full.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with _holder(folder, "files") as holder:
            for name, content in files.items():
                write_bytes(holder / "new" / name, content)
            for name in files:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (holder / "new" / name).replace(folder / name)


@contextlib.contextmanager
def _temporary_beside(path: Path) -> Iterator[Path]:
    descriptor, name = tempfile.mkstemp(prefix=_prefix(path.name), suffix=".part", dir=path.parent)
    os.close(descriptor)
    temporary = Path(name)
    try:
        # mkstemp makes files private to the user; what is published follows the umask like any other file.
        temporary.chmod(0o666 & ~_UMASK)
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _prefix(name: str) -> str:
    """How what is written beside `name` is called; systems count the bytes of a name, of which 255 are the most."""
    return f".{os.fsencode(name)[:80].decode(sys.getfilesystemencoding(), 'ignore')}."


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

    For folders that are urzoo's own: what was at `path` before is removed. Whoever looks for `path` finds the old
    folder or the new one, complete and flushed to the disk; between the two renames there is an instant without either.
    After an exception or a kill `path` is as it was; what a kill leaves behind is a hidden folder whose name ends in
    `.part`, which the next writer of `path` clears away.

    Raises:
        UrzooError: The folder cannot be written to, or the disk is full.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with _holder(path.parent, path.name) as holder:
            content = holder / "new"
            content.mkdir()
            yield content
            _flush_files(content)
            _swap(content, path, holder / "old")
        _flush_folder(path.parent)


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """As `whole_folder`, for a folder of the user's: nothing that is at `path` is ever removed or moved.

    The content becomes `path` by one rename, which the system refuses unless `path` is absent or an empty folder at
    that very instant. The current folder and mount points cannot be renamed onto; their files are linked in one by one,
    and taken out again if one of them cannot be.

    Raises:
        UsageError: `path` holds something, perhaps since the block began; all of it is still there.
        UrzooError: The folder cannot be written to, or the disk is full.
    """
    with writing(path):
        target = path.absolute()
        check_empty(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        filled = target.is_dir() and (target.samefile(".") or target.is_mount())
        with _holder(target if filled else target.parent, target.name) as holder:
            content = holder / "new"
            content.mkdir()
            yield content
            _flush_files(content)
            try:
                _fill(target, content) if filled else content.rename(target)
            except OSError as error:
                if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                    raise UsageError(
                        f"{path} was free and holds something by now; all of it was left alone. Name another folder."
                    ) from None
                raise
        _flush_folder(target.parent)


def check_empty(path: Path) -> None:
    """Refuse a folder that holds something.

    Raises:
        UsageError: It does, or it is no folder.
    """
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        raise UsageError(f"{path} exists and is {'a link' if path.is_symlink() else 'no folder'}; name another")
    if path.is_dir() and any(not _is_leftover(entry) for entry in path.iterdir()):
        raise UsageError(f"folder {path} exists and is not empty; name another, or remove it first")


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """What goes wrong in the block with writing `path`, in one line.

    Raises:
        UrzooError: The system refused something.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:  # the second is what safetensors makes of the first
        reason = getattr(error, "strerror", None) or one_line(error)
        advice = "make room there" if "No space" in reason or "quota" in reason else "name another folder"
        raise UrzooError(f"cannot write {path}: {reason}. Nothing was changed; {advice}.") from error


@contextlib.contextmanager
def _holder(parent: Path, name: str) -> Iterator[Path]:
    """A hidden folder for what is being written, locked while this process lives; those of killed ones are cleared."""
    prefix = _prefix(name)
    for leftover in parent.glob(f"{glob.escape(prefix)}{'[a-z0-9_]' * 8}.part"):
        _clear(leftover, parent / name)
    while True:
        holder = Path(tempfile.mkdtemp(prefix=prefix, suffix=".part", dir=parent))
        with _locked(holder) as is_ours:
            if not is_ours:  # another process took it for a leftover before it was locked
                continue
            try:
                yield holder
            finally:
                shutil.rmtree(holder, ignore_errors=True)
            return


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Whether this process holds the folder's lock, which the system takes from a process that ends."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        yield False
        return
    try:
        is_locked = lock_descriptor(descriptor, blocking=False)
        is_ours = is_locked and folder.is_dir() and os.path.samestat(os.fstat(descriptor), folder.stat())
    except OSError:
        is_ours = False
    try:
        yield is_ours
    finally:
        os.close(descriptor)


def _is_leftover(path: Path) -> bool:
    """Whether it is what `_holder` makes, by name and by content."""
    named = re.fullmatch(r"\..*\.[a-z0-9_]{8}\.part", path.name) and path.is_dir() and not path.is_symlink()
    return bool(named) and {entry.name for entry in path.iterdir()} <= {"new", "old"}


def _clear(leftover: Path, path: Path) -> None:
    """Remove what a killed process left beside `path`; a folder it had moved aside and not yet replaced comes back."""
    with contextlib.suppress(OSError), _locked(leftover) as is_abandoned:
        if is_abandoned and _is_leftover(leftover):
            if (leftover / "old").is_dir() and not path.exists() and _prefix(path.name) == f".{path.name}.":
                (leftover / "old").rename(path)
            shutil.rmtree(leftover, ignore_errors=True)


def _fill(folder: Path, content: Path) -> None:
    """Link the files of `content` into a folder that holds nothing else; all of them, or none."""
    # From the last name to the first: config.json, which makes a folder a checkpoint, comes after the weights.
    files = [path.relative_to(content) for path in sorted(content.rglob("*"), reverse=True) if path.is_file()]
    placed: list[Path] = []
    try:
        check_empty(folder)
        for name in files:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            os.link(content / name, folder / name)  # unlike a rename, refused where there is one
            placed.append(folder / name)
    except BaseException:
        for path in placed:
            path.unlink(missing_ok=True)
        raise


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


def _flush_files(folder: Path) -> None:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
