"""Repositories of the test Hub, in memory: git's commits, branches and tags over LFS and regular blobs.

A commit holds its whole tree, so that "the repository is as it was" can be asserted by comparing
`Repository.state()` before and after.
"""

import base64
import fnmatch
import hashlib
import re
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

# What the Hub writes into a new repository, cut down to the kinds of file that occur in the tests.
GIT_ATTRIBUTES = b"".join(
    f"*.{suffix} filter=lfs diff=lfs merge=lfs -text\n".encode()
    for suffix in ("bin", "ckpt", "h5", "parquet", "pickle", "pkl", "pt", "pth", "safetensors", "zip")
)


class Refused(Exception):
    """A request the Hub answers with an error status; `code` is the X-Error-Code header."""

    def __init__(self, status: int, message: str, code: str | None = None, commit: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.commit = status, message, code, commit


@dataclass(frozen=True)
class Blob:
    """The content of one file, and whether it is kept in LFS storage."""

    data: bytes
    lfs: bool = False
    claimed_size: int | None = None  # what the listings say, for a file too huge to hold in a test

    @property
    def size(self) -> int:
        return len(self.data) if self.claimed_size is None else self.claimed_size

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @cached_property
    def git_oid(self) -> str:
        content = self.pointer if self.lfs else self.data
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()

    @property
    def pointer(self) -> bytes:
        return f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {self.size}\n".encode()

    @property
    def etag(self) -> str:
        return self.sha256 if self.lfs else self.git_oid


@dataclass(frozen=True)
class Commit:
    oid: str
    parent: str | None
    tree: dict[str, Blob]
    title: str
    message: str
    author: str
    date: str


@dataclass
class Repository:
    kind: str  # "model" | "dataset" | "space"
    id: str  # "owner/name"
    private: bool = False
    commits: dict[str, Commit] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    pulls: dict[str, str] = field(default_factory=dict)
    closed: set[int] = field(default_factory=set)  # the numbers of closed pull requests
    lfs_objects: dict[str, bytes] = field(default_factory=dict)

    @property
    def owner(self) -> str:
        return self.id.split("/")[0]

    def state(self) -> tuple[dict[str, str], dict[str, str], dict[str, str]]:
        """Everything a reader can see: branches, tags and pull requests with the commits they point to."""
        return dict(self.branches), dict(self.tags), dict(self.pulls)

    def files(self, revision: str = "main") -> dict[str, bytes]:
        """The files at a revision, without the .gitattributes that every repository starts with."""
        tree = self.commit(revision).tree
        return {path: blob.data for path, blob in tree.items() if path != ".gitattributes"}

    def commit(self, revision: str) -> Commit:
        names = {**self.pulls, **self.tags, **self.branches}
        if oid := names.get(revision):
            return self.commits[oid]
        if re.fullmatch("[0-9a-f]{7,40}", revision):
            for oid, commit in self.commits.items():
                if oid.startswith(revision):
                    return commit
        raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")

    def add_commit(
        self, tree: dict[str, Blob], *, parent: str | None, title: str, author: str, message: str = ""
    ) -> Commit:
        """Record a commit that no branch points to yet."""
        date = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
        listing = "".join(f"{path}\0{blob.git_oid}\0" for path, blob in sorted(tree.items()))
        # The clock keeps two commits of the same tree on the same parent apart, as git's does.
        text = f"{parent}\0{title}\0{author}\0{time.time_ns()}\0{listing}"
        commit = Commit(hashlib.sha1(text.encode()).hexdigest(), parent, dict(tree), title, message, author, date)
        self.commits[commit.oid] = commit
        return commit

    def apply(self, tree: dict[str, Blob], key: str, value: dict[str, Any]) -> None:
        """Carry out one line of a commit on its tree."""
        if key == "file":
            tree[value["path"]] = Blob(base64.b64decode(value["content"]))
        elif key == "lfsFile":
            if value["oid"] not in self.lfs_objects:
                raise Refused(400, f"LFS object {value['oid']} was not uploaded")
            tree[value["path"]] = Blob(self.lfs_objects[value["oid"]], lfs=True)
        elif key == "deletedFile":
            if tree.pop(value["path"], None) is None:
                raise Refused(404, "A file with this name doesn't exist", "EntryNotFound")
        elif key == "deletedFolder":
            for path in [path for path in tree if path.startswith(value["path"].rstrip("/") + "/")]:
                del tree[path]
        elif key != "header":
            raise Refused(400, f"Unknown operation {key}")

    def is_lfs(self, path: str, size: int, revision: str) -> bool:
        """Whether the Hub would put a new file into LFS storage: by .gitattributes, or because it is large."""
        attributes = self.commit(revision).tree.get(".gitattributes", Blob(b"")).data.decode()
        patterns = [line.split()[0] for line in attributes.splitlines() if "filter=lfs" in line]
        name = path.rsplit("/", 1)[-1]
        return size > 10_000_000 or any(fnmatch.fnmatch(name, pattern) for pattern in patterns)

    def log(self, revision: str) -> list[Commit]:
        commits, oid = [], self.commit(revision).oid
        while oid is not None:
            commits.append(self.commits[oid])
            oid = self.commits[oid].parent
        return commits


@dataclass(frozen=True)
class User:
    name: str
    orgs: tuple[str, ...] = ()
    can_write: bool = True

    def may_write(self, owner: str) -> bool:
        return self.can_write and self.is_member(owner)

    def is_member(self, owner: str) -> bool:
        return owner == self.name or owner in self.orgs


class Store:
    """All repositories and users of one test Hub; `lock` guards every change."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.users: dict[str, User] = {}  # by token

    def create(self, kind: str, repo_id: str, *, private: bool = False) -> Repository:
        with self.lock:
            if (kind, repo_id) in self.repositories:
                raise Refused(409, f"You already created this {kind} repo")
            repository = Repository(kind, repo_id, private)
            tree = {".gitattributes": Blob(GIT_ATTRIBUTES)}
            first = repository.add_commit(tree, parent=None, title="initial commit", author=repository.owner)
            repository.branches["main"] = first.oid
            self.repositories[kind, repo_id] = repository
            return repository

    def model(self, repo_id: str) -> Repository:
        return self.repositories["model", repo_id]

    def write(self, repo_id: str, files: dict[str, bytes | Blob], *, kind: str = "model") -> Repository:
        """Put files on the main branch directly, as somebody else's push would; creates the repository."""
        with self.lock:
            repository = self.repositories.get((kind, repo_id)) or self.create(kind, repo_id)
            head = repository.commit("main")
            tree = dict(head.tree)
            for path, content in files.items():
                if isinstance(content, bytes):
                    content = Blob(content, repository.is_lfs(path, len(content), "main"))
                tree[path] = content
                if content.lfs:
                    repository.lfs_objects[content.sha256] = content.data
            commit = repository.add_commit(tree, parent=head.oid, title="write", author=repository.owner)
            repository.branches["main"] = commit.oid
            return repository

    def find(self, kind: str, repo_id: str, user: User | None) -> Repository:
        """The repository if `user` may read it; the Hub does not tell a private one from a missing one."""
        repository = self.repositories.get((kind, repo_id))
        if repository is None or (repository.private and not (user and user.is_member(repository.owner))):
            # Anonymous callers get 401 on the real Hub, in case logging in would help.
            raise Refused(404 if user else 401, "Repository not found", "RepoNotFound")
        return repository
