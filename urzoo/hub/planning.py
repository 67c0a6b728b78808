"""Comparing a checkpoint with the branch it goes to: what a push will change, and what it must not.

Nothing is sent from here. What the repository holds of others is found and either kept or asked for: files that are
no part of the checkpoint, a model of another type, a card that people edited.
"""

import hashlib
import re
from dataclasses import dataclass, replace

from huggingface_hub.hf_api import GitRefs, ModelInfo

from urzoo.errors import UsageError
from urzoo.hub import contents
from urzoo.hub.connection import Connection, HubError, MissingError, MissingRevisionError
from urzoo.hub.download import files_at, read_file
from urzoo.hub.folder import MODEL_TYPES, Checkpoint, LocalFile
from urzoo.hub.merge import illustrated, licensed, merge
from urzoo.hub.plan import PlannedFile, PushPlan
from urzoo.hub.reference import check_revision
from urzoo.hub.store import RemoteFile
from urzoo.schema import parse_json

COMMIT_MARK = "Sent by urzoo."
"""Stands in the description of each commit of a push."""


@dataclass(frozen=True)
class PushOptions:
    """The arguments of `push` that decide what the plan is; see there."""

    revision: str
    private: bool | None
    create_pr: bool
    delete: bool
    force: bool
    commit_message: str | None
    tag: str | None
    licence: str | None

    def __post_init__(self) -> None:
        if self.tag is not None:
            check_revision(self.tag, "tag", "a tag, for example v1.0")
            if self.create_pr:
                raise UsageError(f"tag {self.tag!r} needs a commit on a branch; omit it for a pull request")
        message = self.commit_message
        if message is not None and not (message.strip() and message.isprintable() and len(message) <= 200):
            raise UsageError(f"commit message {message[:80]!r} is not one line of 1 to 200 characters")
        if self.licence is not None and not re.fullmatch(r"[a-z0-9][a-z0-9.-]{0,63}", self.licence):
            raise UsageError(f"license {self.licence!r} is no name of the Hub's list, such as apache-2.0")


@dataclass(frozen=True)
class _Branch:
    """A repository and one of its branches, as they are."""

    info: ModelInfo | None = None
    exists: bool = False
    refs: GitRefs | None = None
    files: dict[str, RemoteFile] | None = None

    @property
    def head(self) -> str | None:
        return self.info.sha if self.info is not None else None


def make_plan(
    connection: Connection, checkpoint: Checkpoint, repo_id: str, options: PushOptions
) -> tuple[PushPlan, tuple[LocalFile, ...]]:
    """The plan of a push, and the files as they will be sent; for the errors see `push`."""
    branch = _look_up(connection, repo_id, options.revision)
    if branch.info is not None and options.private and not branch.info.private:
        raise UsageError(f"repository {repo_id} exists and is public; omit private, or change it on the Hub first")
    if options.create_pr and not branch.exists:
        raise UsageError(
            f"revision {options.revision!r} of {repo_id} does not exist, so there is nothing to propose changes to"
        )
    notes: list[str] = []
    checkpoint = _with_card(connection, checkpoint, repo_id, branch, options, notes)
    present = branch.files or {}
    if not options.force:
        _check_model(connection, checkpoint, repo_id, branch)
    names = {file.path for file in checkpoint.files}
    owned = (path for path in present if contents.is_checkpoint_file(path) or contents.is_own_code(path))
    surplus = tuple(sorted(path for path in owned if path not in names))
    deletions = surplus if options.delete else tuple(sorted(contents.stale_weights(surplus, names)))
    files = tuple(planned(file, present.get(file.path)) for file in checkpoint.files)
    default_tag = f"urzoo-{checkpoint.digest[:12]}"
    tag = None if options.create_pr else options.tag or default_tag
    tagged = next((ref.target_commit for ref in (branch.refs.tags if branch.refs else ()) if ref.name == tag), None)
    plan = PushPlan(
        repo_id=repo_id,
        endpoint=connection.endpoint,
        revision=options.revision,
        parent=branch.head,
        creates_repository=branch.info is None,
        creates_branch=not branch.exists and options.revision != "main",
        private=bool(options.private) if branch.info is None else bool(branch.info.private),
        create_pr=options.create_pr,
        tag=tag,
        tag_exists=tagged is not None,
        commit_message=options.commit_message or (f"Push {default_tag}"),
        files=files,
        deletions=deletions,
        kept=tuple(path for path in surplus if path not in deletions),
        left_out=checkpoint.left_out,
        has_code=checkpoint.has_code,
        notes=tuple(notes),
    )
    if options.tag is not None and tagged is not None and (plan.commits or tagged != branch.head):
        raise UsageError(f"tag {options.tag!r} of {repo_id} exists, at commit {tagged[:12]}; name another")
    if plan.create_pr and plan.commits:
        plan = replace(plan, pull_request_url=_proposed(connection, plan, checkpoint.files))
    return plan, checkpoint.files


def is_same(file: LocalFile, present: RemoteFile | None) -> bool:
    """Whether the Hub has a file with exactly these bytes."""
    return present is not None and present.hash in (file.sha256, file.git_oid)


def _look_up(connection: Connection, repo_id: str, revision: str) -> _Branch:
    """What the Hub says of the branch, or of main if there is no such branch."""
    api, what = connection.api, f"looking up {repo_id}"
    exists = True
    try:
        info = connection.attempt(what, lambda: api.model_info(repo_id, revision=revision))
    except MissingRevisionError:
        if revision == "main":
            raise
        info, exists = connection.attempt(what, lambda: api.model_info(repo_id)), False
    except MissingError:
        return _Branch()
    refs = connection.attempt(f"listing the tags of {repo_id}", lambda: api.list_repo_refs(repo_id))
    is_branch = any(ref.name == revision for ref in refs.branches) or revision.startswith("refs/pr/")
    if exists and not is_branch:
        kind = "tag" if any(ref.name == revision for ref in refs.tags) else "commit"
        raise UsageError(f"revision {revision!r} of {repo_id} is a {kind}, which no push can change; name a branch")
    head = info.sha
    files = connection.attempt(f"listing {repo_id}", lambda: files_at(connection, repo_id, head)) if head else {}
    return _Branch(info, exists, refs, files)


def _check_model(connection: Connection, checkpoint: Checkpoint, repo_id: str, branch: _Branch) -> None:
    """Refuse to put a checkpoint in place of another kind of model."""
    present = branch.files or {}
    ours = next(file for file in checkpoint.files if file.path == contents.CONFIG)
    theirs = present.get(contents.CONFIG)
    advice = "name another repository, or replace it with --force"
    if theirs is None:
        weights = next((path for path in present if contents.is_weights(path) or contents.is_pickled(path)), None)
        if weights is not None:
            raise UsageError(f"repository {repo_id} holds weights of another model ({weights!a}); {advice}")
        return
    if is_same(ours, theirs) or branch.head is None:
        return
    text = read_file(connection, repo_id, branch.head, theirs).decode("utf-8", errors="replace")
    try:
        config = parse_json(text, contents.CONFIG, error=HubError)
    except HubError:
        config = None
    found = config.get("model_type") if isinstance(config, dict) else None
    if found not in MODEL_TYPES:
        raise UsageError(f"repository {repo_id} holds a model of type {str(found)[:80]!a}, not urzoo's; {advice}")


def _with_card(
    connection: Connection,
    checkpoint: Checkpoint,
    repo_id: str,
    branch: _Branch,
    options: PushOptions,
    notes: list[str],
) -> Checkpoint:
    """The checkpoint with the card that will be sent: with licence, picture, and what was written on the Hub."""
    card = next(file for file in checkpoint.files if file.path == contents.CARD)
    text = card.content.decode("utf-8", "surrogateescape")
    theirs = (branch.files or {}).get(contents.CARD)
    if theirs is not None and branch.head is not None and not is_same(card, theirs):
        present = read_file(connection, repo_id, branch.head, theirs).decode("utf-8", "surrogateescape")
        head = branch.head
        merged = merge(text, present, is_base=lambda: _is_ours(connection, repo_id, head), force=options.force)
        if merged.drops_edits:
            notes.append("README.md was edited inside its generated part on the Hub; those edits are replaced")
        text = merged.text
    if options.licence is not None:
        text = licensed(text, options.licence)
    if any(file.path == contents.CURVE for file in checkpoint.files):
        # An address: the Hub takes no path. Of main, whose card is the one that the repository's page shows.
        picture = f"/resolve/main/{contents.CURVE}"
        text = illustrated(text, f"{connection.endpoint}/{repo_id}{picture}", picture)
    content = text.encode("utf-8", "surrogateescape")
    sent = LocalFile(card.path, content, hashlib.sha256(content).hexdigest())
    return replace(checkpoint, files=tuple(sent if file is card else file for file in checkpoint.files))


def _is_ours(connection: Connection, repo_id: str, commit: str) -> bool:
    """Whether the last commit is one of a push, so that nobody has edited anything since."""
    log = connection.attempt(
        f"looking up {repo_id}", lambda: connection.api.list_repo_commits(repo_id, revision=commit)
    )
    return bool(log) and COMMIT_MARK in (log[0].message or "")


def planned(file: LocalFile, present: RemoteFile | None) -> PlannedFile:
    """A file of a push, compared with the one the branch has."""
    change = "new" if present is None else "same" if is_same(file, present) else "changed"
    return PlannedFile(file.path, file.size_bytes, file.sha256, change)  # type: ignore[arg-type]


def _proposed(connection: Connection, plan: PushPlan, files: tuple[LocalFile, ...]) -> str | None:
    """The address of an open pull request whose content is that of this plan."""
    api, repo_id = connection.api, plan.repo_id

    def step() -> list[int]:
        listed = api.get_repo_discussions(repo_id, discussion_type="pull_request", discussion_status="open")
        return [one.num for one in listed]

    try:
        numbers = connection.attempt(f"listing the pull requests of {repo_id}", step)
    except MissingError:
        return None
    for number in sorted(numbers, reverse=True)[:20]:
        revision = f"refs/pr/{number}"
        what = f"listing pull request {number} of {repo_id}"
        present = connection.attempt(what, lambda revision=revision: files_at(connection, repo_id, revision))  # type: ignore[misc]
        if all(is_same(file, present.get(file.path)) for file in files) and not present.keys() & set(plan.deletions):
            return f"{plan.endpoint}/{repo_id}/discussions/{number}"
    return None
