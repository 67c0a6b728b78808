"""Sending a checkpoint folder to the Hub: one commit that holds all of it, and a tag, or nothing.

Large files go to the Hub's file store first, where nobody sees them; the commit that names them is one
request with the parent it was planned on, so the branch changes whole or not at all. An answer that is
lost after the commit was made is recognised by the branch's content before anything is repeated.

Large files travel by the LFS protocol also where hf_xet is installed: checkpoints are megabytes, for which
its deduplication gains nothing, and its requests cannot be bounded, logged and repeated from here.
"""

import io
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete
from huggingface_hub.hf_api import ModelInfo, RepoFile

from urzoo.errors import UsageError
from urzoo.hub import contents
from urzoo.hub.connection import (
    Connection,
    GaveUpError,
    HubError,
    MissingError,
    MissingRevisionError,
    Patience,
    StaleParentError,
    check_repo_id,
    check_revision,
)
from urzoo.hub.export import export
from urzoo.hub.folder import Checkpoint, LocalFile, read_checkpoint
from urzoo.hub.plan import PlannedFile, PushPlan, PushResult
from urzoo.zoo.lookup import path as find_checkpoint


def push(
    name_or_folder: str | Path,
    repo_id: str,
    *,
    private: bool | None = None,
    with_code: bool = False,
    dry_run: bool = False,
    revision: str = "main",
    create_pr: bool = False,
    token: str | None = None,
    endpoint: str | None = None,
    confirm: Callable[[PushPlan], bool] | None = None,
    patience: Patience | None = None,
) -> PushResult:
    """Send a checkpoint to a model repository of the Hub.

    Args:
        name_or_folder: The name of a shipped checkpoint, or a checkpoint folder.
        repo_id: OWNER/NAME; made if it does not exist.
        private: Whether a repository made by this push is private. For one that exists, True insists on it;
            its visibility is never changed.
        with_code: Send the code as well, so that the checkpoint loads without urzoo (`trust_remote_code`).
        dry_run: Work out the plan and send nothing.
        revision: The branch; made if it does not exist.
        create_pr: Propose the commit as a pull request.
        token: An access token; the one huggingface_hub finds when omitted.
        endpoint: The Hub's address; huggingface_hub's (HF_ENDPOINT) when omitted.
        confirm: Shown the plan before anything is sent; nothing is sent if it says no. Not asked if there is
            nothing to send.
        patience: How often and how long to try.

    Raises:
        UsageError: An argument is not what it should be, or the repository is public where `private` is True.
        CheckpointError: The folder is not a complete checkpoint; the Hub was not asked anything.
        StaleParentError: Somebody else committed to the branch meanwhile; nothing of this push is in it.
        UnreachableError: There is no connection; nothing was sent.
        HubError: The Hub refused, or failed until patience ended; the message says what was sent.
    """
    check_repo_id(repo_id)
    check_revision(revision)
    folder = find_checkpoint(name_or_folder)
    if with_code:
        with tempfile.TemporaryDirectory(prefix="urzoo-push-") as temporary:
            checkpoint = read_checkpoint(export(folder, Path(temporary) / folder.name, with_code=True).folder)
    else:
        checkpoint = read_checkpoint(folder)
    connection = Connection(endpoint, token, patience)
    plan = _plan(connection, checkpoint, repo_id, revision, private=private, create_pr=create_pr)
    if dry_run or plan.sends_nothing or (confirm is not None and not confirm(plan)):
        url = f"{connection.endpoint}/{repo_id}/commit/{plan.parent}" if plan.parent else None
        return PushResult(plan, sent=False, commit=plan.parent, commit_url=url)
    if connection.token is None:
        raise HubError("there is no access token, so nothing was sent; log in with `hf auth login`, or set HF_TOKEN")
    return _Push(connection, plan, checkpoint.files).run()


def _plan(
    connection: Connection,
    checkpoint: Checkpoint,
    repo_id: str,
    revision: str,
    *,
    private: bool | None,
    create_pr: bool,
) -> PushPlan:
    """Compare the folder with the branch."""
    info, branch_exists = _look_up(connection, repo_id, revision)
    if info is not None and private and not info.private:
        raise UsageError(f"repository {repo_id} exists and is public; omit private, or change it on the Hub first")
    if create_pr and not branch_exists:
        raise UsageError(
            f"revision {revision!r} of {repo_id} does not exist, so there is nothing to propose changes to"
        )
    present = _listing(connection, repo_id, info.sha) if info is not None and info.sha else {}
    files = tuple(_planned(file, present.get(file.path)) for file in checkpoint.files)
    names = {file.path for file in files}
    owned = (path for path in present if contents.is_checkpoint_file(path) or contents.is_code(path))
    tag = None if create_pr else f"urzoo-{checkpoint.digest[:12]}"
    tagged = _tagged(connection, repo_id, tag) if tag and info is not None else None
    return PushPlan(
        repo_id=repo_id,
        endpoint=connection.endpoint,
        revision=revision,
        parent=info.sha if info is not None else None,
        creates_repository=info is None,
        creates_branch=not branch_exists and revision != "main",
        private=bool(private) if info is None else bool(info.private),
        create_pr=create_pr,
        tag=tag,
        tag_exists=tagged is not None,
        files=files,
        deletions=tuple(sorted(path for path in owned if path not in names)),
        left_out=checkpoint.left_out,
        has_code=checkpoint.has_code,
    )


def _look_up(connection: Connection, repo_id: str, revision: str) -> tuple[ModelInfo | None, bool]:
    """What the Hub says of the branch, or of main if there is no such branch, and whether there is."""
    api, what = connection.api, f"looking up {repo_id}"
    try:
        return connection.attempt(what, lambda: api.model_info(repo_id, revision=revision)), True
    except MissingRevisionError:
        if revision == "main":
            raise
        return connection.attempt(what, lambda: api.model_info(repo_id)), False
    except MissingError:
        return None, False


def _listing(connection: Connection, repo_id: str, commit: str) -> dict[str, RepoFile]:
    def entries() -> dict[str, RepoFile]:
        listed = connection.api.list_repo_tree(repo_id, recursive=True, revision=commit)
        return {entry.path: entry for entry in listed if isinstance(entry, RepoFile)}

    return connection.attempt(f"listing {repo_id}", entries)


def _tagged(connection: Connection, repo_id: str, tag: str) -> str | None:
    """The commit that carries a tag."""
    refs = connection.attempt(f"listing the tags of {repo_id}", lambda: connection.api.list_repo_refs(repo_id))
    return next((ref.target_commit for ref in refs.tags if ref.name == tag), None)


def _planned(file: LocalFile, present: RepoFile | None) -> PlannedFile:
    change = "new" if present is None else "same" if _is_same(file, present) else "changed"
    return PlannedFile(file.path, file.size_bytes, file.sha256, change)  # type: ignore[arg-type]


def _is_same(file: LocalFile, present: RepoFile) -> bool:
    return file.sha256 == present.lfs.sha256 if present.lfs is not None else file.git_oid == present.blob_id


@dataclass(frozen=True)
class _Commit:
    oid: str
    url: str
    pull_request_url: str | None


class _Push:
    """The steps that send. Each may be repeated; the branch changes in `_commit` alone."""

    def __init__(self, connection: Connection, plan: PushPlan, files: tuple[LocalFile, ...]) -> None:
        self.connection, self.api, self.plan = connection, connection.api, plan
        wanted = {file.path for file in plan.changed}
        self.files = [file for file in files if file.path in wanted]
        self.parent = plan.parent
        # For the message, should a later step fail.
        self.done: list[str] = []
        self.missing = "the commit, without which nothing of this push shows"

    def run(self) -> PushResult:
        try:
            return self._run()
        except (StaleParentError, UsageError):
            raise
        except HubError as error:
            sent = f"sent: {', '.join(self.done)}" if self.done else "nothing was sent"
            raise type(error)(f"{error}. Before that, {sent}; not sent: {self.missing}. Push again to go on.") from None

    def _run(self) -> PushResult:
        plan, pull_request_url = self.plan, None
        self._prepare()
        commit, url = self.parent, f"{plan.endpoint}/{plan.repo_id}/commit/{self.parent}"
        if plan.commits:
            for file in filter(_may_be_stored_apart, self.files):
                self._upload(file)
            made = self._commit()
            commit, url, pull_request_url = made.oid, made.url, made.pull_request_url
            self.done = ["the whole content, as one commit"]
        self.missing = "the tag"
        if plan.tag is not None and commit is not None:
            self._tag(plan.tag, commit)
        return PushResult(plan, sent=True, commit=commit, commit_url=url, pull_request_url=pull_request_url)

    def _prepare(self) -> None:
        """Make the repository and the branch where they are missing."""
        plan, api = self.plan, self.api
        if plan.creates_repository:
            what = f"making the repository {plan.repo_id}"
            private = plan.private or None  # None: as the owner's settings say
            self.connection.attempt(what, lambda: api.create_repo(plan.repo_id, private=private, exist_ok=True))
            info = self.connection.attempt(what, lambda: api.model_info(plan.repo_id))
            if plan.private and not info.private:
                raise StaleParentError(f"{plan.repo_id} was made by somebody else meanwhile, and is public; push again")
            if self._listed_changes(info.sha):
                raise StaleParentError(
                    f"{plan.repo_id} was made by somebody else meanwhile; push again to see the plan"
                )
            self.parent = info.sha
            self.done.append("the new repository, still empty")
        if plan.creates_branch:
            what = f"making the branch {plan.revision}"
            self.connection.attempt(
                what,
                lambda: api.create_branch(plan.repo_id, branch=plan.revision, revision=self.parent, exist_ok=True),
            )
            self.done.append(f"the new branch {plan.revision}, with the content of main")

    def _listed_changes(self, commit: str | None) -> bool:
        """Whether a repository that should be new holds files of a checkpoint already."""
        present = _listing(self.connection, self.plan.repo_id, commit) if commit else {}
        return any(contents.is_checkpoint_file(path) for path in present)

    def _upload(self, file: LocalFile) -> None:
        """Bring a file into the file store, if it is one that the Hub keeps there."""
        plan = self.plan
        self.connection.attempt(
            f"sending {file.path}",
            lambda: self.api.preupload_lfs_files(
                plan.repo_id, [_addition(file)], revision=plan.revision, create_pr=plan.create_pr, free_memory=False
            ),
        )
        self.done.append(f"{file.path} (to the file store, not visible without a commit)")

    def _commit(self) -> _Commit:
        plan, api = self.plan, self.api

        def step() -> _Commit:
            deletions = [CommitOperationDelete(path) for path in plan.deletions]
            info = api.create_commit(
                plan.repo_id,
                [*deletions, *(_addition(file) for file in self.files)],
                commit_message=f"Push {plan.tag}" if plan.tag else "Push a checkpoint",
                commit_description="Sent by urzoo.",
                revision=plan.revision,
                parent_commit=self.parent,
                create_pr=plan.create_pr,
            )
            return _Commit(info.oid, info.commit_url, info.pr_url)

        what = f"committing to {plan.repo_id}"
        try:
            return self.connection.attempt(what, step, settled=self._committed)
        except StaleParentError as error:
            # A commit whose answer was lost makes its own repetition stale.
            if (info := self._committed_after_all(what, error)) is not None:
                return info
            raise StaleParentError(
                f"{error}, so somebody else pushed to {plan.revision} of {plan.repo_id} meanwhile; nothing of this "
                "push is in it. Look at what changed, then push again."
            ) from None
        except GaveUpError as error:
            if (info := self._committed_after_all(what, error)) is not None:
                return info
            raise

    def _committed(self) -> _Commit | None:
        """Our commit, if it was made although its answer was lost: the branch's head, or a pull request's."""
        plan, api = self.plan, self.api
        heads = [plan.revision]
        if plan.create_pr:
            refs = api.list_repo_refs(plan.repo_id, include_pull_requests=True)
            heads = [ref.ref for ref in refs.pull_requests or []]
        for head in heads:
            log = api.list_repo_commits(plan.repo_id, revision=head)
            if len(log) > 1 and log[1].commit_id == self.parent and self._holds_all(log[0].commit_id):
                number = head.removeprefix("refs/pr/")
                return _Commit(
                    oid=log[0].commit_id,
                    url=f"{plan.endpoint}/{plan.repo_id}/commit/{log[0].commit_id}",
                    pull_request_url=(
                        f"{plan.endpoint}/{plan.repo_id}/discussions/{number}" if plan.create_pr else None
                    ),
                )
        return None

    def _committed_after_all(self, what: str, error: HubError) -> _Commit | None:
        """As `_committed`, after the last attempt; a Hub that does not answer leaves the question open."""
        try:
            return self.connection.attempt(what, self._committed)
        except HubError:
            self.missing = "perhaps the commit"
            raise GaveUpError(f"{error}; whether the commit was made cannot be found out") from None

    def _holds_all(self, commit: str) -> bool:
        listed = self.api.list_repo_tree(self.plan.repo_id, recursive=True, revision=commit)
        present = {entry.path: entry for entry in listed if isinstance(entry, RepoFile)}
        return not set(self.plan.deletions) & set(present) and all(
            file.path in present and _is_same(file, present[file.path]) for file in self.files
        )

    def _tag(self, tag: str, commit: str) -> None:
        plan, api = self.plan, self.api
        self.connection.attempt(
            f"setting the tag {tag}", lambda: api.create_tag(plan.repo_id, tag=tag, revision=commit, exist_ok=True)
        )


def _may_be_stored_apart(file: LocalFile) -> bool:
    """Whether the Hub may keep a file outside git. Such files are sent one at a time, each a step of its own."""
    try:
        file.content[:1_000_000].decode()
    except UnicodeDecodeError:
        return True
    return file.size_bytes > 1_000_000


def _addition(file: LocalFile) -> CommitOperationAdd:
    # A stream, not bytes or a path: huggingface_hub sends streams by LFS, the rest by xet where it is installed.
    return CommitOperationAdd(file.path, io.BytesIO(file.content))
