"""What a push is about to do, worked out before anything is sent, and what it did."""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["model", "dataset", "space"]
"""What the Hub calls the type of a repository."""


@dataclass(frozen=True)
class PlannedFile:
    """One file of a push; `change` compares it with the branch it goes to."""

    path: str
    size_bytes: int
    sha256: str
    change: Literal["new", "changed", "same"]


@dataclass(frozen=True, kw_only=True)
class PushPlan:
    """What a push will send.

    Attributes:
        repo_id: The repository, OWNER/NAME.
        endpoint: The Hub's address.
        revision: The branch that is committed to; with `create_pr` the one the pull request is based on.
        parent: The branch's commit now, None where repository or branch do not exist yet.
        creates_repository: Whether the repository is made by this push.
        creates_branch: Whether the branch is made by this push.
        private: Whether the repository is, or will be, private.
        create_pr: Whether the commit goes into a new pull request instead of the branch.
        tag: The tag for the commit, None for a pull request.
        tag_exists: Whether that tag is on the branch's commit already.
        commit_message: The first line of what the commit says.
        files: What the folder holds and a checkpoint may, in order of name.
        deletions: Files of a checkpoint that the branch has and the folder has not, and that will be deleted.
        kept: The same where nothing is deleted.
        left_out: Files of the folder that are no part of a checkpoint and stay here.
        has_code: Whether Python code is among the files.
        pull_request_url: The open pull request that already proposes exactly this.
        notes: What the user should know, each one line.
        kind: Of the repository.
    """

    repo_id: str
    endpoint: str
    revision: str
    parent: str | None
    creates_repository: bool
    creates_branch: bool = False
    private: bool
    create_pr: bool = False
    tag: str | None = None
    tag_exists: bool = False
    commit_message: str
    files: tuple[PlannedFile, ...]
    deletions: tuple[str, ...]
    kept: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    has_code: bool = False
    pull_request_url: str | None = None
    notes: tuple[str, ...] = ()
    kind: Kind = "model"

    @property
    def address(self) -> str:
        """The page of the repository."""
        return f"{self.endpoint}/{'' if self.kind == 'model' else f'{self.kind}s/'}{self.repo_id}"

    @property
    def changed(self) -> tuple[PlannedFile, ...]:
        """The files that will be sent."""
        return tuple(file for file in self.files if file.change != "same")

    @property
    def bytes_to_send(self) -> int:
        """Their total size."""
        return sum(file.size_bytes for file in self.changed)

    @property
    def commits(self) -> bool:
        """Whether there is anything to commit."""
        return bool(self.changed or self.deletions)

    @property
    def sends_nothing(self) -> bool:
        """Whether the Hub already holds all of it, tag included, or it is proposed already."""
        if self.pull_request_url is not None:
            return True
        return not self.commits and not self.creates_branch and (self.tag is None or self.tag_exists)


@dataclass(frozen=True)
class PushResult:
    """What a push did.

    Attributes:
        plan: What it was to do.
        sent: Whether anything was sent; False for a dry run, a refused confirmation, and unchanged content.
        commit: The commit that holds the content, None if none was made and there is none.
        commit_url: Its address on the Hub.
        pull_request_url: The address of the pull request, if one was made.
    """

    plan: PushPlan
    sent: bool
    commit: str | None
    commit_url: str | None
    pull_request_url: str | None = None
