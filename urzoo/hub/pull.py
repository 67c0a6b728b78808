"""Taking a checkpoint from the Hub: one commit, the files of a checkpoint only, every byte checked.

What is fetched is decided from the Hub's listing of that commit before the first file is asked for, and
each file is held to its size and hash there. A folder appears under its name complete or not at all. Code
and pickles are never fetched unless asked for (code), and nothing that is fetched is ever run.
"""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

from urzoo.errors import CheckpointError, UsageError
from urzoo.files import check_empty, expanded, new_folder, remove_file, write_bytes
from urzoo.hub import contents
from urzoo.hub.connection import Connection, HubError, Patience, UnreachableError
from urzoo.hub.download import fetch, list_files
from urzoo.hub.folder import check_checkpoint, check_model_type
from urzoo.hub.reference import check_repo_id, check_revision
from urzoo.hub.store import RemoteFile, RepositoryStore, copy_files
from urzoo.schema import parse_json
from urzoo.zoo.bounds import check_config
from urzoo.zoo.lookup import read_config

_MOST_FILES = 1000


@dataclass(frozen=True)
class Pulled:
    """A pulled checkpoint.

    Attributes:
        folder: Where it is: `out`, or urzoo's own store.
        repo_id: The repository, OWNER/NAME.
        revision: The branch, tag or commit that was asked for.
        commit: The commit it was found at.
        files: The names of the files taken.
        skipped: The names of the repository's other files.
        bytes_received: What came over the network.
        offline: Whether the Hub could not be asked, and this is the copy pulled earlier.
        warnings: What the user should know, each one line.
    """

    folder: Path
    repo_id: str
    revision: str
    commit: str
    files: tuple[str, ...]
    skipped: tuple[str, ...]
    bytes_received: int
    offline: bool
    warnings: tuple[str, ...]


def pull(
    repo_id: str,
    revision: str | None = None,
    out: str | Path | None = None,
    *,
    with_code: bool = False,
    any_model: bool = False,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    force: bool = False,
    token: str | None = None,
    endpoint: str | None = None,
    patience: Patience | None = None,
    store: Path | None = None,
) -> Pulled:
    """Take a checkpoint from a model repository of the Hub.

    Args:
        repo_id: OWNER/NAME.
        revision: A branch, tag or commit; main when omitted.
        out: A folder to make; it must not exist, or be empty. Without it the checkpoint stays in urzoo's
            store, where it is found again, also offline.
        with_code: Take the Python files too, for use without urzoo. They are not run here.
        any_model: Take a model of any type that transformers itself has, to evaluate it; else only urzoo's.
        include: Patterns as of a shell; only files whose paths match one are taken, those of a checkpoint or not, but
            no pickles, and no code unless asked for. Then `out` must be given: the store holds whole checkpoints.
        exclude: Patterns of files that are left out.
        force: Write into `out` although it holds something: files of the same names are replaced, others stay, but for
            weights, which would be loaded in the place of the new ones.
        token: An access token; the one huggingface_hub finds when omitted.
        endpoint: The Hub's address; huggingface_hub's (HF_ENDPOINT) when omitted.
        patience: How often and how long to try.
        store: The folder of urzoo's store; in huggingface_hub's home (HF_HOME) when omitted.

    Raises:
        UsageError: An argument is not what it should be, or `out` holds something.
        HubError: The Hub refused or failed, or the repository holds what urzoo does not take. Nothing was
            written to `out`; what was received is kept and not asked for again.
        CheckpointError: The files do not make a checkpoint; nothing was written to `out`.
        UnreachableError: There is no connection, and no copy that was pulled earlier.
    """
    check_repo_id(repo_id)
    asked = check_revision(revision or "main")
    target = None if out is None else expanded(out)
    if target is None and (include or exclude or force):
        raise UsageError("include, exclude and force need a folder to write to; name one")
    if target is not None and not force:
        check_empty(target)
    connection = Connection(endpoint, token, patience)
    pulling = _Pull(connection, RepositoryStore(repo_id, store), repo_id, asked, any_model=any_model)
    if include or exclude:
        pulled, sources = pulling.part(include, exclude, with_code=with_code)
    else:
        pulled = pulling.run(with_code=with_code)
        sources = {path: pulled.folder / path for path in pulled.files}
    if target is None:
        return pulled
    if force and target.is_dir():
        check_replaceable(target, sources)
        stale = contents.stale_weights((path.name for path in target.iterdir()), sources)
        last = sources.keys() & {contents.CONFIG}  # it makes a folder a checkpoint
        for path in sorted(sources.keys() - last):
            write_bytes(target / path, sources[path].read_bytes())
        for path in stale:
            remove_file(target / path)
        for path in last:
            write_bytes(target / path, sources[path].read_bytes())
    else:
        with new_folder(target) as folder:
            copy_files(folder, sources)
    return replace(pulled, folder=target)


def check_replaceable(folder: Path, paths: Iterable[str]) -> None:
    """Refuse to write through a link, which leads out of the folder, or over a folder.

    Raises:
        UsageError: A path is one.
    """
    for path in paths:
        for part in (folder / path, *(folder / path).parents):
            if part == folder:
                break
            if part.is_symlink() or (part.exists() and part.is_dir() == (part == folder / path)):
                raise UsageError(f"{part} is a link or of another kind than the repository's; move it away first")


class _Pull:
    """One pull into the store."""

    def __init__(
        self, connection: Connection, store: RepositoryStore, repo_id: str, revision: str, *, any_model: bool
    ) -> None:
        self.connection, self.store = connection, store
        self.repo_id, self.revision, self.any_model = repo_id, revision, any_model
        self.bytes_received = 0

    def run(self, *, with_code: bool) -> Pulled:
        try:
            commit, listing = self._look_up()
        except UnreachableError as error:
            return self._kept(error, with_code=with_code)
        wanted = {path: file for path, file in listing.items() if _is_wanted(path, with_code=with_code)}
        _check_wanted(wanted, listing)
        name = _kept_name(commit, with_code=with_code)
        if not os.access(self.store.folder, os.W_OK) and (folder := self.store.commit(name)) is not None:
            # Where nothing can be written, nothing need be.
            self._check_kept(folder)
            return self._pulled(folder, commit, wanted, listing)
        with self.store.locked():
            folder = self.store.commit(name)
            if folder is not None:
                self._check_kept(folder)
            else:
                # The configuration first: a model of another type is refused before its weights are fetched.
                for path in sorted(wanted, key=lambda path: (path != contents.CONFIG, path)):
                    self._fetch(commit, wanted[path])
                    if path == contents.CONFIG:
                        self._check_config(wanted[path])
                with self.store.new_commit(name, wanted) as staging:
                    _check(staging, self.repo_id, any_model=self.any_model)
                folder = self.store.commits / name
            self.store.remember(self.revision, commit)
        return self._pulled(folder, commit, wanted, listing)

    def _check_kept(self, folder: Path) -> None:
        """Refuse what is kept of another library's model, which was taken to be evaluated, unless that is asked for."""
        if not self.any_model:
            check_model_type(read_config(folder), f"config.json of {self.repo_id}")

    def part(
        self, include: Sequence[str], exclude: Sequence[str], *, with_code: bool
    ) -> tuple[Pulled, dict[str, Path]]:
        """Some files of the repository, in the store by their content; not looked at as a checkpoint."""
        commit, listing = self._look_up()
        wanted = {
            path: file
            for path, file in listing.items()
            if not contents.is_pickled(path)
            and (with_code or not path.endswith(".py"))
            and (any(fnmatchcase(path, one) for one in include) if include else contents.is_checkpoint_file(path))
            and not any(fnmatchcase(path, one) for one in exclude)
        }
        if not wanted:
            raise UsageError(
                f"no file of {self.repo_id} is taken by these patterns; it has {', '.join(sorted(listing)[:20])}"
            )
        check_sizes(wanted)
        with self.store.locked():
            for file in wanted.values():
                self._fetch(commit, file)
        pulled = self._pulled(self.store.objects, commit, wanted, listing)
        return pulled, {path: self.store.object_path(file) for path, file in wanted.items()}

    def _pulled(
        self, folder: Path, commit: str, wanted: dict[str, RemoteFile], listing: dict[str, RemoteFile]
    ) -> Pulled:
        skipped = tuple(sorted(listing.keys() - wanted.keys()))
        return Pulled(
            folder=folder,
            repo_id=self.repo_id,
            revision=self.revision,
            commit=commit,
            files=tuple(sorted(wanted)),
            skipped=skipped,
            bytes_received=self.bytes_received,
            offline=False,
            warnings=tuple(_warnings(wanted, skipped)),
        )

    def _look_up(self) -> tuple[str, dict[str, RemoteFile]]:
        """The commit the revision stands at, and its files."""
        api, what = self.connection.api, f"looking up {self.repo_id}@{self.revision}"
        info = self.connection.attempt(what, lambda: api.model_info(self.repo_id, revision=self.revision))
        commit = info.sha or ""
        if not re.fullmatch("[0-9a-f]{40}", commit):
            raise HubError(f"while {what}: the Hub names no commit, but {commit[:60]!r}")

        return commit, list_files(self.connection, self.repo_id, commit)

    def _kept(self, error: UnreachableError, *, with_code: bool) -> Pulled:
        """The copy pulled earlier, when the Hub cannot be asked."""
        is_commit = re.fullmatch("[0-9a-f]{40}", self.revision)
        commit = self.revision if is_commit else self.store.remembered(self.revision)
        folder = self.store.commit(_kept_name(commit, with_code=with_code)) if commit is not None else None
        if commit is None or folder is None:
            raise UnreachableError(
                f"{error}, and no copy of {self.repo_id}@{self.revision} was pulled earlier"
            ) from None
        self._check_kept(folder)
        files = tuple(sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()))
        return Pulled(
            folder=folder,
            repo_id=self.repo_id,
            revision=self.revision,
            commit=commit,
            files=files,
            skipped=(),
            bytes_received=0,
            offline=True,
            warnings=(f"{error}; this is the copy of commit {commit[:12]} pulled earlier",),
        )

    def _fetch(self, commit: str, file: RemoteFile) -> None:
        """Bring one file into the store, going on where an earlier attempt or pull stopped."""
        if not self.store.has_object(file):
            part = self.store.objects / f"{file.hash}.part"
            fetch(self.connection, self.repo_id, commit, file, part, self._count)
            part.rename(self.store.object_path(file))

    def _count(self, received_bytes: int) -> None:
        self.bytes_received += received_bytes

    def _check_config(self, file: RemoteFile) -> None:
        source = f"config.json of {self.repo_id}"
        try:
            text = self.store.object_path(file).read_bytes().decode("utf-8")
        except UnicodeDecodeError:
            raise CheckpointError(f"{source} is not text in UTF-8.") from None
        config = parse_json(text, source, error=CheckpointError)
        if not self.any_model:
            check_model_type(config, source)
        if isinstance(config, dict):
            check_config(config, source)


def _kept_name(commit: str, *, with_code: bool) -> str:
    """What the store calls a commit's folder."""
    return commit + "-with-code" * with_code


def _is_wanted(path: str, *, with_code: bool) -> bool:
    return contents.is_checkpoint_file(path) or (with_code and contents.is_code(path))


def _check_wanted(wanted: dict[str, RemoteFile], listing: dict[str, RemoteFile]) -> None:
    """Refuse, before anything is fetched, what cannot be a checkpoint of urzoo or is too large for one."""
    if not any(contents.is_weights(path) for path in wanted):
        pickled = sorted(path for path in listing if contents.is_pickled(path))
        if pickled:
            raise HubError(
                f"the repository has weights as {pickled[0]!a} only, which can run code; urzoo takes safetensors"
            )
        raise HubError(f"the repository has no {contents.WEIGHTS}, so it is no checkpoint")
    if contents.CONFIG not in wanted:
        raise HubError(f"the repository has no {contents.CONFIG}, so it is no checkpoint")
    check_sizes(wanted)


def check_sizes(wanted: dict[str, RemoteFile]) -> None:
    """Refuse more, or larger, files than a checkpoint has.

    Raises:
        HubError: There are such.
    """
    if len(wanted) > _MOST_FILES:
        raise HubError(f"the repository has {len(wanted)} files to take; expected at most {_MOST_FILES}")
    for path, file in wanted.items():
        if file.size_bytes > contents.largest_bytes(path):
            raise HubError(f"{path} has {file.size_bytes} bytes; expected at most {contents.largest_bytes(path)}")


def _check(staging: Path, repo_id: str, *, any_model: bool) -> None:
    try:
        check_checkpoint(staging, any_model=any_model)
    except CheckpointError as error:
        message = str(error).replace(f"{staging}/", "").replace(str(staging), "the repository")
        raise CheckpointError(f"{repo_id} is not a checkpoint that urzoo loads: {message}") from None


def _warnings(wanted: dict[str, RemoteFile], skipped: tuple[str, ...]) -> Iterator[str]:
    code = [path for path in (*wanted, *skipped) if path.endswith(".py")]
    if code:
        fate = "taken but not run" if any(path in wanted for path in code) else "not taken"
        yield f"the repository holds {len(code)} Python files ({code[0]} ...); they were {fate}"
    if pickled := [path for path in skipped if contents.is_pickled(path)]:
        yield f"the repository holds {pickled[0]}, a format that can run code; it was not taken"
