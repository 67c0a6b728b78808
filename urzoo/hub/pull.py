"""Taking a checkpoint from the Hub: one commit, the files of a checkpoint only, every byte checked.

What is fetched is decided from the Hub's listing of that commit before the first file is asked for, and
each file is held to its size and hash there. A folder appears under its name complete or not at all. Code
and pickles are never fetched unless asked for (code), and nothing that is fetched is ever run.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
from huggingface_hub import get_session, hf_hub_url
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils._headers import build_hf_headers
from huggingface_hub.utils._http import hf_raise_for_status

from urzoo.errors import CheckpointError
from urzoo.files import check_empty, new_folder
from urzoo.hub import contents
from urzoo.hub.connection import (
    Connection,
    HubError,
    PassingError,
    Patience,
    UnreachableError,
    check_repo_id,
    check_revision,
)
from urzoo.hub.folder import check_checkpoint, check_model_type
from urzoo.hub.store import RemoteFile, RepositoryStore, place


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
    target = None if out is None else Path(out).expanduser()
    if target is not None:
        check_empty(target)
    connection = Connection(endpoint, token, patience)
    pulling = _Pull(connection, RepositoryStore(repo_id, store), repo_id, asked, any_model=any_model)
    pulled = pulling.run(with_code=with_code)
    if target is None:
        return pulled
    with new_folder(target) as folder:
        place(folder, {path: pulled.folder / path for path in pulled.files})
    return Pulled(**{**vars(pulled), "folder": target})


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
        contents.check_names(listing)
        wanted = {path: file for path, file in listing.items() if _is_wanted(path, with_code=with_code)}
        _check_wanted(wanted, listing)
        with self.store.locked():
            name = self._kept_name(commit, with_code=with_code)
            folder = self.store.commit(name)
            if folder is None:
                # The configuration first: a model of another type is refused before its weights are fetched.
                for path in sorted(wanted, key=lambda path: (path != contents.CONFIG, path)):
                    self._fetch(commit, wanted[path])
                    if path == contents.CONFIG and not self.any_model:
                        self._check_config(wanted[path])
                with self.store.new_commit(name, wanted) as staging:
                    _check(staging, self.repo_id, any_model=self.any_model)
                folder = self.store.commits / name
            self.store.remember(self.revision, commit)
        skipped = tuple(sorted(set(listing) - set(wanted)))
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

    def _kept_name(self, commit: str, *, with_code: bool) -> str:
        """What the store calls the commit's folder; a model that was only taken to be evaluated is kept apart."""
        return commit + "-with-code" * with_code + "-any-model" * self.any_model

    def _look_up(self) -> tuple[str, dict[str, RemoteFile]]:
        """The commit the revision stands at, and its files."""
        api, what = self.connection.api, f"looking up {self.repo_id}@{self.revision}"
        info = self.connection.attempt(what, lambda: api.model_info(self.repo_id, revision=self.revision))
        commit = info.sha or ""
        if not re.fullmatch("[0-9a-f]{40}", commit):
            raise HubError(f"while {what}: the Hub names no commit, but {commit[:60]!r}")

        def entries() -> dict[str, RemoteFile]:
            listed = api.list_repo_tree(self.repo_id, recursive=True, revision=commit)
            return {entry.path: _remote(entry) for entry in listed if isinstance(entry, RepoFile)}

        return commit, self.connection.attempt(f"listing {self.repo_id}", entries)

    def _kept(self, error: UnreachableError, *, with_code: bool) -> Pulled:
        """The copy pulled earlier, when the Hub cannot be asked."""
        is_commit = re.fullmatch("[0-9a-f]{40}", self.revision)
        commit = self.revision if is_commit else self.store.remembered(self.revision)
        folder = self.store.commit(self._kept_name(commit, with_code=with_code)) if commit is not None else None
        if commit is None or folder is None:
            raise UnreachableError(
                f"{error}, and no copy of {self.repo_id}@{self.revision} was pulled earlier"
            ) from None
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
        if self.store.has_object(file):
            return
        part = self.store.objects / f"{file.hash}.part"
        what = f"fetching {file.path} of {self.repo_id}"
        for trial in (1, 2):
            self.connection.attempt(what, lambda: self._receive(commit, file, part))
            if file.matches(part):
                part.rename(self.store.object_path(file))
                return
            # Damaged on the way, perhaps in an earlier pull's part: once more from the beginning.
            part.unlink()
            if trial == 2:
                raise HubError(f"while {what}: the content is not what the Hub's listing promises (its hash differs)")

    def _receive(self, commit: str, file: RemoteFile, part: Path) -> None:
        """Append to the part file until it has the size of the file."""
        if part.is_symlink():
            part.unlink()
        have = part.stat().st_size if part.is_file() else 0
        if have > file.size_bytes:
            part.unlink()
            have = 0
        if have == file.size_bytes and part.is_file():
            return
        url = hf_hub_url(self.repo_id, file.path, revision=commit, endpoint=self.connection.endpoint)
        headers = build_hf_headers(token=self.connection.token or False, library_name="urzoo")
        # Without compression, so that lengths and ranges are those of the file.
        headers |= {"Accept-Encoding": "identity", **({"Range": f"bytes={have}-"} if have else {})}
        with get_session().stream("GET", url, headers=headers) as response:
            if response.status_code == 416:
                part.unlink()
                raise PassingError("the Hub does not know the rest of the file")
            if response.status_code >= 400:
                response.read()
            hf_raise_for_status(response)
            resumes = response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
            starts = have if response.status_code == 206 and resumes else 0
            with part.open("ab" if starts else "wb") as target:
                for chunk in _chunks(response):
                    starts += len(chunk)
                    self.bytes_received += len(chunk)
                    if starts > file.size_bytes:
                        break
                    target.write(chunk)
        if starts > file.size_bytes:
            part.unlink()
            raise HubError(f"the Hub sends more than the {file.size_bytes} bytes it lists for {file.path}")
        if starts < file.size_bytes:
            raise PassingError("the connection was cut")

    def _check_config(self, file: RemoteFile) -> None:
        try:
            config = json.loads(self.store.object_path(file).read_bytes())
        except ValueError:
            raise CheckpointError(f"config.json of {self.repo_id} is not JSON.") from None
        check_model_type(config, f"config.json of {self.repo_id}")


def _remote(entry: RepoFile) -> RemoteFile:
    digest, size_bytes = (entry.lfs.sha256, entry.lfs.size) if entry.lfs is not None else (entry.blob_id, entry.size)
    if not re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", digest) or not isinstance(size_bytes, int) or size_bytes < 0:
        raise HubError(f"the Hub lists {entry.path[:80]!a} with the hash {digest[:80]!a}, which is none")
    return RemoteFile(entry.path, size_bytes, digest)


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


def _chunks(response: httpx2.Response) -> Iterator[bytes]:
    try:
        yield from response.iter_bytes()  # as they come: a fixed size would hold back what precedes a cut
    except (httpx2.TimeoutException, httpx2.NetworkError, httpx2.RemoteProtocolError):
        raise PassingError("the connection was cut") from None
