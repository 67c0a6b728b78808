"""Where pulled checkpoints are kept on this machine, so that each is complete or not there.

    <root>/<owner>--<name>/objects/<hash>        verified files, by content; `<hash>.part` while one is fetched
    <root>/<owner>--<name>/commits/<commit>/     a checkpoint, renamed into place when complete and checked
    <root>/<owner>--<name>/commits/<commit>.json its files and their hashes
    <root>/<owner>--<name>/refs/<revision>       the commit a branch or tag was found at last
    <root>/<owner>--<name>/lock                  held while any of these change

Only what is below `commits` is ever handed out. A kill leaves parts and hidden staging folders, which the
next pull of the repository uses or clears.
"""

import contextlib
import hashlib
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from filelock import FileLock, Timeout
from huggingface_hub import constants

from urzoo.errors import UrzooError
from urzoo.files import expanded, whole_folder, write_json, write_text
from urzoo.hub.guard import HubError
from urzoo.schema import read_json

_LOCK_SECONDS = 600.0


@dataclass(frozen=True)
class RemoteFile:
    """A file of a commit as the Hub lists it. `hash` is a sha256 for what is in LFS, git's sha1 otherwise."""

    path: str
    size_bytes: int
    hash: str

    def matches(self, path: Path) -> bool:
        """Whether a file on this machine has exactly these bytes; a link never has."""
        if path.is_symlink() or not path.is_file() or path.stat().st_size != self.size_bytes:
            return False
        in_lfs = len(self.hash) == 64
        digest = hashlib.sha256() if in_lfs else hashlib.sha1(b"blob %d\0" % self.size_bytes, usedforsecurity=False)
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
        return digest.hexdigest() == self.hash


class RepositoryStore:
    """The kept checkpoints of one repository.

    Args:
        repo_id: OWNER/NAME, already checked.
        root: The folder of all repositories; `urzoo` in huggingface_hub's home (HF_HOME) when omitted.
    """

    def __init__(self, repo_id: str, root: Path | None = None) -> None:
        base = root if root is not None else Path(constants.HF_HOME) / "urzoo"
        self.folder = expanded(base).absolute() / repo_id.replace("/", "--")
        self.objects = self.folder / "objects"
        self.commits = self.folder / "commits"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes' pulls of this repository out; the system frees the lock of a killed one.

        Raises:
            UrzooError: The folder cannot be written to, or another pull does not end.
        """
        try:
            for folder in (self.objects, self.commits):
                folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self.folder / "lock", timeout=_LOCK_SECONDS):
                self._clear()
                yield
        except Timeout:
            raise HubError(
                f"another pull holds {self.folder / 'lock'} for {_LOCK_SECONDS:.0f} s; end it first"
            ) from None
        except OSError as error:
            raise UrzooError(
                f"cannot write {self.folder}: {error.strerror or error}. Set HF_HOME to a folder."
            ) from error

    def _clear(self) -> None:
        """Remove the staging folders and files of killed pulls; the lock is held, so no other pull is using one."""
        for leftover in (*self.commits.glob(".*.part"), *(self.folder / "refs").glob(".*.part")):
            if leftover.is_dir() and not leftover.is_symlink():
                shutil.rmtree(leftover, ignore_errors=True)
            else:
                leftover.unlink(missing_ok=True)

    def object_path(self, file: RemoteFile) -> Path:
        """Where the verified bytes of a file are kept."""
        return self.objects / file.hash

    def has_object(self, file: RemoteFile) -> bool:
        """Whether the bytes are here and, read again, still the right ones; damaged ones are removed."""
        path = self.object_path(file)
        if file.matches(path):
            return True
        path.unlink(missing_ok=True)
        return False

    def commit(self, commit: str) -> Path | None:
        """The folder of a commit that was pulled, with every file still as it was; None if it is not so."""
        folder, manifest = self.commits / commit, self.commits / f"{commit}.json"
        if not folder.is_dir() or not manifest.is_file():
            return None
        listed: dict[str, Any] = read_json(manifest, error=HubError)
        for path, (size_bytes, digest) in listed.items():
            if not RemoteFile(path, size_bytes, digest).matches(folder / path):
                return None
        return folder

    @contextlib.contextmanager
    def new_commit(self, commit: str, files: Mapping[str, RemoteFile]) -> Iterator[Path]:
        """A folder with these files, to be checked in the block; it becomes the commit's when the block ends well."""
        write_json(
            self.commits / f"{commit}.json",
            {path: [file.size_bytes, file.hash] for path, file in sorted(files.items())},
        )
        if (self.commits / commit).exists():  # damaged, or `commit` would have been taken
            shutil.rmtree(self.commits / commit)
        with whole_folder(self.commits / commit) as staging:
            copy_files(staging, {path: self.object_path(file) for path, file in files.items()})
            yield staging

    def remember(self, revision: str, commit: str) -> None:
        """Note where a branch or tag stands, for when the Hub cannot be asked."""
        write_text(self.folder / "refs" / quote(revision, safe=""), commit)

    def remembered(self, revision: str) -> str | None:
        """The commit a revision stood at when it was pulled last."""
        path = self.folder / "refs" / quote(revision, safe="")
        return path.read_text(encoding="utf-8").strip() if path.is_file() else None


def copy_files(folder: Path, sources: Mapping[str, Path]) -> None:
    """Copy files into a folder under their names; a copy, so that editing one leaves the other as it is."""
    for path, source in sources.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target, follow_symlinks=False)
