"""Sending a checkpoint folder to the Hub: one commit that holds all of it, and a tag, or nothing.

Large files go to the Hub's file store first, where nobody sees them; the commit that names them is one
request with the parent it was planned on, so the branch changes whole or not at all. An answer that is
lost after the commit was made is recognised by the branch's content before anything is repeated.

Large files travel by the LFS protocol also where hf_xet is installed: checkpoints are megabytes, for which
its deduplication gains nothing, and its requests cannot be bounded, logged and repeated from here.
"""

import io
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete
from huggingface_hub.errors import HfHubHTTPError

from urzoo.errors import UsageError
from urzoo.hub import contents
from urzoo.hub.connection import Connection, GaveUpError, HubError, Patience, RefusedError, StaleParentError
from urzoo.hub.download import files_at
from urzoo.hub.export import export
from urzoo.hub.folder import LocalFile, read_checkpoint
from urzoo.hub.guard import PassingError
from urzoo.hub.plan import PushPlan, PushResult
from urzoo.hub.planning import COMMIT_MARK, PushOptions, is_same, make_plan
from urzoo.hub.reference import check_repo_id, check_revision
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
    delete: bool = False,
    force: bool = False,
    commit_message: str | None = None,
    tag: str | None = None,
    licence: str | None = None,
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
        create_pr: Propose the commit as a pull request. One that is open and proposes the same is not made again.
        delete: Delete files of a checkpoint that the branch has and the folder has not; else only weights are, which
            would be loaded in the place of these.
        force: Also into a repository that holds a model of another type, and in place of a card that was edited there.
        commit_message: What the commit says, in one line.
        tag: The commit's tag; one that follows from the content when omitted.
        licence: The Hub's name of the licence of the weights, such as apache-2.0, for the card that is sent.
        token: An access token; the one huggingface_hub finds when omitted.
        endpoint: The Hub's address; huggingface_hub's (HF_ENDPOINT) when omitted.
        confirm: Shown the plan before anything is sent; nothing is sent if it says no. Not asked if there is
            nothing to send.
        patience: How often and how long to try.

    Raises:
        UsageError: An argument is not what it should be; the repository is public where `private` is True, or holds
            what this push would replace and `force` is not given. Nothing was sent.
        CheckpointError: The folder is not a complete checkpoint; the Hub was not asked anything.
        StaleParentError: Somebody else committed to the branch meanwhile; nothing of this push is in it.
        UnreachableError: There is no connection; nothing was sent.
        HubError: The Hub refused, or failed until patience ended; the message says what was sent.
    """
    check_repo_id(repo_id)
    check_revision(revision)
    options = PushOptions(
        revision=revision,
        private=private,
        create_pr=create_pr,
        delete=delete,
        force=force,
        commit_message=commit_message,
        tag=tag,
        licence=licence,
    )
    folder = find_checkpoint(name_or_folder)
    if with_code:
        with tempfile.TemporaryDirectory(prefix="urzoo-push-") as temporary:
            checkpoint = read_checkpoint(export(folder, Path(temporary) / "checkpoint", with_code=True).folder)
    else:
        checkpoint = read_checkpoint(folder)
    connection = Connection(endpoint, token, patience)
    plan, files = make_plan(connection, checkpoint, repo_id, options)
    return carried_out(connection, plan, files, dry_run=dry_run, confirm=confirm)


def carried_out(
    connection: Connection,
    plan: PushPlan,
    files: tuple[LocalFile, ...],
    *,
    dry_run: bool,
    confirm: Callable[[PushPlan], bool] | None,
    is_ours: Callable[[str], bool] = contents.is_checkpoint_file,
) -> PushResult:
    """Send what a plan says, unless there is nothing to send, it was not asked for, or it is not confirmed.

    Args:
        connection: To the Hub.
        plan: What to send.
        files: The files of the plan.
        dry_run: As for `push`.
        confirm: As for `push`.
        is_ours: Whether a file shows that somebody else has pushed to a repository that should be new.

    Raises:
        HubError: As for `push`, or there is no access token.
    """
    if dry_run or plan.sends_nothing or (confirm is not None and not confirm(plan)):
        url = f"{plan.address}/commit/{plan.parent}" if plan.parent else None
        return PushResult(plan, sent=False, commit=plan.parent, commit_url=url, pull_request_url=plan.pull_request_url)
    if connection.token is None:
        raise HubError("there is no access token, so nothing was sent; log in with `hf auth login`, or set HF_TOKEN")
    return Push(connection, plan, files, is_ours).run()


@dataclass(frozen=True)
class _Commit:
    oid: str
    url: str
    pull_request_url: str | None


class Push:
    """The steps that send. Each may be repeated; the branch changes in `_commit` alone."""

    def __init__(
        self, connection: Connection, plan: PushPlan, files: tuple[LocalFile, ...], is_ours: Callable[[str], bool]
    ) -> None:
        self.connection, self.api, self.plan, self.is_ours = connection, connection.api, plan, is_ours
        wanted = {file.path for file in plan.changed}
        self.files = [file for file in files if file.path in wanted]
        self.parent = plan.parent
        # For the message, should a later step fail.
        self.done: list[str] = []
        self.missing = "the commit, without which nothing of this push shows"

    def run(self) -> PushResult:
        """Carry the plan out."""
        try:
            return self._run()
        except (StaleParentError, UsageError):
            raise
        except HubError as error:
            sent = f"sent: {', '.join(self.done)}" if self.done else "nothing was sent"
            advice = "" if isinstance(error, RefusedError) else " Push again to go on."
            raise type(error)(f"{error}. Before that, {sent}; not sent: {self.missing}.{advice}") from None

    def _run(self) -> PushResult:
        plan, pull_request_url = self.plan, None
        self._prepare()
        commit, url = self.parent, f"{plan.address}/commit/{self.parent}"
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
            self.connection.attempt(
                what,
                lambda: api.create_repo(
                    plan.repo_id,
                    private=plan.private or None,  # None: as the owner's settings say
                    repo_type=plan.kind,
                    space_sdk="static" if plan.kind == "space" else None,
                    exist_ok=True,
                ),
            )
            info = self.connection.attempt(what, lambda: api.repo_info(plan.repo_id, repo_type=plan.kind))
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
                lambda: api.create_branch(
                    plan.repo_id, branch=plan.revision, revision=self.parent, repo_type=plan.kind, exist_ok=True
                ),
            )
            self.done.append(f"the new branch {plan.revision}, with the content of main")

    def _listed_changes(self, commit: str | None) -> bool:
        """Whether a repository that should be new holds what only a push of somebody else put there."""
        repo_id = self.plan.repo_id
        if commit is None:
            return False
        present = self.connection.attempt(
            f"listing {repo_id}", lambda: files_at(self.connection, repo_id, commit, self.plan.kind)
        )
        return any(self.is_ours(path) for path in present)

    def _upload(self, file: LocalFile) -> None:
        """Bring a file into the file store, if it is one that the Hub keeps there."""
        plan = self.plan

        def step() -> None:
            try:
                self.api.preupload_lfs_files(
                    plan.repo_id,
                    [_addition(file)],
                    revision=plan.revision,
                    create_pr=plan.create_pr,
                    free_memory=False,
                    repo_type=plan.kind,
                )
            except RuntimeError as error:  # around the answer to the upload
                cause = error.__cause__
                if isinstance(cause, HfHubHTTPError) and "/verify" in str(cause.response.url):
                    raise PassingError("the Hub took the file and does not have it") from None
                raise

        self.connection.attempt(f"sending {file.path}", step)
        self.done.append(f"{file.path} (to the file store, not visible without a commit)")

    def _commit(self) -> _Commit:
        plan, api = self.plan, self.api

        def step() -> _Commit:
            deletions = [CommitOperationDelete(path) for path in plan.deletions]
            try:
                info = api.create_commit(
                    plan.repo_id,
                    [*deletions, *(_addition(file) for file in self.files)],
                    commit_message=plan.commit_message,
                    commit_description=COMMIT_MARK,
                    revision=plan.revision,
                    parent_commit=self.parent,
                    create_pr=plan.create_pr,
                    repo_type=plan.kind,
                )
            except HfHubHTTPError as error:
                if error.response.status_code in (400, 404, 422) and re.search(r"(?i)\blfs\b", str(error)):
                    reason = self.connection.clean(error.server_message or "")
                    raise HubError(f"the Hub took a file and does not have it in its store ({reason})") from None
                raise
            number = re.search(r"/discussions/(\d{1,9})$", info.pr_url or "")
            return self._made(info.oid, number[1] if number else None)

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

    def _made(self, commit: str, pull_request: str | None) -> _Commit:
        """A commit by its addresses, made here: an answer may hold anything."""
        if not re.fullmatch("[0-9a-f]{40}", commit):
            raise HubError(f"the Hub names no commit, but {commit[:60]!a}")
        address = self.plan.address
        return _Commit(
            commit, f"{address}/commit/{commit}", f"{address}/discussions/{pull_request}" if pull_request else None
        )

    def _committed(self) -> _Commit | None:
        """Our commit, if it was made although its answer was lost: the branch's head, or a pull request's."""
        plan, api = self.plan, self.api
        heads = [plan.revision]
        if plan.create_pr:
            refs = api.list_repo_refs(plan.repo_id, include_pull_requests=True, repo_type=plan.kind)
            heads = [ref.ref for ref in refs.pull_requests or []]
        for head in heads:
            log = api.list_repo_commits(plan.repo_id, revision=head, repo_type=plan.kind)
            if len(log) > 1 and log[1].commit_id == self.parent and self._holds_all(log[0].commit_id):
                return self._made(log[0].commit_id, head.removeprefix("refs/pr/") if plan.create_pr else None)
        return None

    def _committed_after_all(self, what: str, error: HubError) -> _Commit | None:
        """As `_committed`, after the last attempt; a Hub that does not answer leaves the question open."""
        try:
            return self.connection.attempt(what, self._committed)
        except HubError:
            self.missing = "perhaps the commit"
            raise GaveUpError(f"{error}; whether the commit was made cannot be found out") from None

    def _holds_all(self, commit: str) -> bool:
        present = files_at(self.connection, self.plan.repo_id, commit, self.plan.kind)
        return not set(self.plan.deletions) & set(present) and all(
            file.path in present and is_same(file, present[file.path]) for file in self.files
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
