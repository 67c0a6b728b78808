"""Reading a repository: the files of a commit as the Hub lists them, and their bytes, held to size and hash."""

import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
from huggingface_hub import get_session, hf_hub_url
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

from urzoo.hub import contents
from urzoo.hub.connection import Connection
from urzoo.hub.guard import HubError, PassingError, read_answer, timed_out
from urzoo.hub.plan import Kind
from urzoo.hub.store import RemoteFile


def list_files(connection: Connection, repo_id: str, commit: str, kind: Kind = "model") -> dict[str, RemoteFile]:
    """The files of a commit by their paths, all of them of names that are safe to write."""
    found = connection.attempt(f"listing {repo_id}", lambda: files_at(connection, repo_id, commit, kind))
    contents.check_names(found)
    return found


def files_at(connection: Connection, repo_id: str, revision: str, kind: Kind = "model") -> dict[str, RemoteFile]:
    """As `list_files`, as a step for `Connection.attempt`."""
    listed = connection.api.list_repo_tree(repo_id, recursive=True, revision=revision, repo_type=kind)
    return {entry.path: _remote(entry) for entry in listed if isinstance(entry, RepoFile)}


def read_file(
    connection: Connection,
    repo_id: str,
    commit: str,
    file: RemoteFile,
    kind: Kind = "model",
    largest_bytes: int = contents.LARGEST_OTHER_BYTES,
) -> bytes:
    """The content of a small file."""
    if file.size_bytes > largest_bytes:
        raise HubError(f"{file.path} of {repo_id} has {file.size_bytes} bytes; expected at most {largest_bytes}")
    with tempfile.TemporaryDirectory(prefix="urzoo-hub-") as folder:
        part = Path(folder) / "part"
        fetch(connection, repo_id, commit, file, part, lambda _: None, kind)
        return part.read_bytes()


def fetch(
    connection: Connection,
    repo_id: str,
    commit: str,
    file: RemoteFile,
    part: Path,
    received: Callable[[int], None],
    kind: Kind = "model",
) -> None:
    """Bring a file's bytes into `part`, going on where an earlier attempt stopped, and find them to be the right ones.

    Args:
        connection: To the Hub.
        repo_id: The repository.
        commit: The commit in which the file is.
        file: It.
        part: Where its bytes go.
        received: Told how many bytes came.
        kind: Of the repository.

    Raises:
        HubError: They are not what the listing promises, also the second time.
    """
    what = f"fetching {file.path} of {repo_id}"
    for trial in (1, 2):
        connection.attempt(
            what,
            lambda: _receive(connection, repo_id, commit, file, part, received, kind),
            progress=lambda: part.stat().st_size if part.is_file() else 0,
        )
        if file.matches(part):
            return
        # Damaged on the way, perhaps in an earlier pull's part: once more from the beginning.
        part.unlink()
        if trial == 2:
            raise HubError(f"while {what}: the content is not what the Hub's listing promises (its hash differs)")


def _receive(
    connection: Connection,
    repo_id: str,
    commit: str,
    file: RemoteFile,
    part: Path,
    received: Callable[[int], None],
    kind: Kind,
) -> None:
    """Append to the part file until it has the size of the file."""
    if part.is_symlink():
        part.unlink()
    have = part.stat().st_size if part.is_file() else 0
    if have > file.size_bytes:
        part.unlink()
        have = 0
    if have == file.size_bytes and part.is_file():
        return
    url = hf_hub_url(repo_id, file.path, repo_type=kind, revision=commit, endpoint=connection.endpoint)
    headers = build_hf_headers(token=connection.token or False, library_name="urzoo")
    # Without compression, so that lengths and ranges are those of the file.
    headers |= {"Accept-Encoding": "identity", **({"Range": f"bytes={have}-"} if have else {})}
    with get_session().stream("GET", url, headers=headers) as response:
        if response.status_code == 416:
            part.unlink()
            raise PassingError("the Hub does not know the rest of the file")
        hf_raise_for_status(response if response.status_code < 400 else read_answer(response))
        resumes = response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        starts = have if response.status_code == 206 and resumes else 0
        with part.open("ab" if starts else "wb") as target:
            for chunk in _chunks(response):
                starts += len(chunk)
                received(len(chunk))
                if starts > file.size_bytes:
                    break
                target.write(chunk)
    if starts > file.size_bytes:
        part.unlink()
        raise HubError(f"the Hub sends more than the {file.size_bytes} bytes it lists for {file.path}")
    if starts < file.size_bytes:
        raise PassingError("the connection was cut")


def _remote(entry: RepoFile) -> RemoteFile:
    digest, size_bytes = (entry.lfs.sha256, entry.lfs.size) if entry.lfs is not None else (entry.blob_id, entry.size)
    if not re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", digest) or not isinstance(size_bytes, int) or size_bytes < 0:
        raise HubError(f"the Hub lists {entry.path[:80]!a} with the hash {digest[:80]!a}, which is none")
    return RemoteFile(entry.path, size_bytes, digest)


def _chunks(response: httpx2.Response) -> Iterator[bytes]:
    try:
        yield from response.iter_bytes()  # as they come: a fixed size would hold back what precedes a cut
    except httpx2.TimeoutException:
        raise timed_out() from None
    except (httpx2.NetworkError, httpx2.RemoteProtocolError):
        raise PassingError("the connection was cut") from None
