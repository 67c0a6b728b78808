"""Files that are no checkpoint, such as a board: sent as one commit to a data set or a Space, and fetched again.

The sending is that of `push`: planned first, one atomic commit on the parent that it was planned on, recognised when
its answer is lost. A repository that holds something else is left alone.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from urzoo.errors import UsageError
from urzoo.hub.connection import Connection, HubError, MissingError, Patience
from urzoo.hub.download import files_at, list_files, read_file
from urzoo.hub.folder import LocalFile, refuse_token
from urzoo.hub.plan import Kind, PushPlan, PushResult
from urzoo.hub.planning import planned
from urzoo.hub.push import carried_out
from urzoo.hub.reference import check_repo_id

# What the Hub itself puts into a new repository.
_BORN_WITH = frozenset({".gitattributes", "README.md", "index.html", "style.css"})


def push_files(
    files: Mapping[str, bytes],
    repo_id: str,
    kind: Kind,
    *,
    mark: str,
    is_owned: Callable[[str], bool],
    message: str,
    private: bool | None = None,
    dry_run: bool = False,
    token: str | None = None,
    endpoint: str | None = None,
    confirm: Callable[[PushPlan], bool] | None = None,
    patience: Patience | None = None,
) -> PushResult:
    """Make the main branch of a repository hold some files, in one commit.

    Args:
        files: Their content by path.
        repo_id: OWNER/NAME; made if it does not exist.
        kind: Of the repository: "dataset", or "space" for a static one.
        mark: The file that tells a repository of this kind of content from one that holds something else.
        is_owned: Whether a file that the repository has and `files` has not is to be deleted there.
        message: What the commit says.
        private, dry_run, token, endpoint, confirm, patience: As for `push`.

    Raises:
        UsageError: The repository holds something else, or is public where `private` is True; nothing was sent.
        StaleParentError: Somebody else committed to the branch meanwhile; nothing of this is in it.
        UnreachableError: There is no connection; nothing was sent.
        HubError: The Hub refused, or failed until patience ended; the message says what was sent.
    """
    check_repo_id(repo_id)
    sent = tuple(
        LocalFile(path, content, hashlib.sha256(content).hexdigest()) for path, content in sorted(files.items())
    )
    for file in sent:
        refuse_token(file.path, file.content)
    connection = Connection(endpoint, token, patience)
    plan = _plan(connection, sent, repo_id, kind, mark=mark, is_owned=is_owned, message=message, private=private)
    return carried_out(connection, plan, sent, dry_run=dry_run, confirm=confirm, is_ours=lambda path: path == mark)


def _plan(
    connection: Connection,
    files: tuple[LocalFile, ...],
    repo_id: str,
    kind: Kind,
    *,
    mark: str,
    is_owned: Callable[[str], bool],
    message: str,
    private: bool | None,
) -> PushPlan:
    what = f"looking up the {kind} {repo_id}"
    try:
        info = connection.attempt(what, lambda: connection.api.repo_info(repo_id, repo_type=kind))
    except MissingError:
        info = None
    head = info.sha if info is not None else None
    present = connection.attempt(what, lambda: files_at(connection, repo_id, head, kind)) if head else {}
    if info is not None and private and not info.private:
        raise UsageError(f"the {kind} {repo_id} exists and is public; omit private, or change it on the Hub first")
    if mark not in present and (others := sorted(set(present) - _BORN_WITH)):
        raise UsageError(f"the {kind} {repo_id} holds something else ({others[0]!a}); name another repository")
    names = {file.path for file in files}
    return PushPlan(
        repo_id=repo_id,
        endpoint=connection.endpoint,
        revision="main",
        parent=head,
        creates_repository=info is None,
        private=bool(private) if info is None else bool(info.private),
        commit_message=message,
        files=tuple(planned(file, present.get(file.path)) for file in files),
        deletions=tuple(sorted(path for path in present if is_owned(path) and path not in names)),
        kind=kind,
    )


@dataclass(frozen=True)
class Fetched:
    """Files of a repository at a commit, every one checked by its hash."""

    commit: str
    files: dict[str, bytes]


def fetch_files(
    repo_id: str,
    revision: str | None,
    kind: Kind,
    *,
    is_wanted: Callable[[str], bool],
    largest_bytes: int,
    most_files: int,
    token: str | None = None,
    endpoint: str | None = None,
    patience: Patience | None = None,
) -> Fetched:
    """Take files from a repository, pinned to the commit at which its revision stands.

    Args:
        repo_id: OWNER/NAME.
        revision: A branch, tag or commit; main when omitted.
        kind: Of the repository.
        is_wanted: Which of its files, by path; the others are not asked for.
        largest_bytes: Of one file.
        most_files: In all.
        token, endpoint, patience: As for `pull`.

    Raises:
        HubError: The Hub refused or failed, has none of the files wanted, or larger or more ones than allowed.
        UnreachableError: There is no connection.
    """
    connection = Connection(endpoint, token, patience)
    what = f"looking up the {kind} {repo_id}@{revision or 'main'}"
    info = connection.attempt(what, lambda: connection.api.repo_info(repo_id, revision=revision, repo_type=kind))
    commit = info.sha or ""
    listed = list_files(connection, repo_id, commit, kind)
    wanted = [file for path, file in sorted(listed.items()) if is_wanted(path)]
    if not wanted:
        raise HubError(f"the {kind} {repo_id} holds none of the files that are expected there")
    if len(wanted) > most_files:
        raise HubError(f"the {kind} {repo_id} holds {len(wanted)} such files; expected at most {most_files}")
    taken = {file.path: read_file(connection, repo_id, commit, file, kind, largest_bytes) for file in wanted}
    return Fetched(commit, taken)
