"""The endpoints of the test Hub: what the clients ask, answered from the `Store`.

Each endpoint is a method marked with `@route`; the regular expression matches "METHOD /path" with the
path unquoted, except that a quoted "/" inside a revision arrives as a zero byte.
"""

import hashlib
import json
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, quote

from .call import Answer, Call
from .describe import describe, entries
from .store import Blob, Commit, Refused, Repository, Store

REPO = r"(?P<kind>model|dataset|space)s/(?P<repo_id>[^/]+/[^/]+?)"
REVISION = r"(?P<revision>refs/pr/\d+|[^/]+)"
PREFIX = r"/(?P<prefix>datasets/|spaces/|)(?P<repo_id>[^/]+/[^/]+?)"


_ROUTES: list[tuple[re.Pattern[str], str]] = []


def route(pattern: str) -> Callable[[Callable[..., Answer]], Callable[..., Answer]]:
    def mark(method: Callable[..., Answer]) -> Callable[..., Answer]:
        _ROUTES.append((re.compile(pattern), method.__name__))
        return method

    return mark


class Api:
    def __init__(self, store: Store, endpoint: str, storage: str) -> None:
        self.store, self.endpoint, self.storage = store, endpoint, storage
        self.page = 1000  # entries in one answer of a listing
        self.endless = False  # each answer of a listing leads to another page
        self.next_page: str | None = None  # and this is where
        self.lfs_everywhere: bool | None = None  # overrides .gitattributes: True all LFS, False all regular
        self.lose_uploads = 0  # so many uploads are accepted and not kept
        self.verify = True  # ask the client to have its uploads verified
        self.redirect = True  # serve LFS files from the storage host

    def answer(self, call: Call) -> Answer:
        for pattern, name in _ROUTES:
            if match := pattern.fullmatch(f"{call.method} {call.path}"):
                groups = {key: value.replace("\0", "/") for key, value in match.groupdict().items() if value}
                with self.store.lock:
                    return getattr(self, name)(call, **groups)
        raise Refused(404, f"The test Hub has no {call.method} {call.path}")

    def _read(self, call: Call, kind: str, repo_id: str) -> Repository:
        return self.store.find(kind, repo_id, call.user)

    def _write(self, call: Call, kind: str, repo_id: str) -> Repository:
        repository = self._read(call, kind, repo_id)
        if call.user is None:
            raise Refused(401, "Invalid username or password.")
        if not call.user.may_write(repository.owner):
            raise Refused(403, "Forbidden: you don't have write access to this repository")
        return repository

    # Accounts and repositories

    @route("GET /api/whoami-v2")
    def whoami(self, call: Call) -> Answer:
        if call.user is None:
            raise Refused(401, "Invalid username or password.")
        role = "write" if call.user.can_write else "read"
        orgs = [{"type": "org", "name": org} for org in call.user.orgs]
        token = {"type": "access_token", "accessToken": {"displayName": "test", "role": role}}
        return Answer({"type": "user", "id": "1", "name": call.user.name, "orgs": orgs, "auth": token})

    @route("POST /api/repos/create")
    def create_repo(self, call: Call) -> Answer:
        body, user = call.json(), call.user
        if user is None:
            raise Refused(401, "Invalid username or password.")
        owner = body.get("organization") or user.name
        if not user.may_write(owner):
            raise Refused(403, f"You don't have the rights to create a model under the namespace {owner}")
        kind, repo_id = body.get("type") or "model", f"{owner}/{body['name']}"
        private = body.get("visibility") == "private" or body.get("private") is True
        prefix = "" if kind == "model" else f"{kind}s/"
        answer = {"url": f"{self.endpoint}/{prefix}{repo_id}", "id": repo_id}
        try:
            self.store.create(kind, repo_id, private=private)
        except Refused as refused:
            return Answer({**answer, "error": refused.message}, 409)
        return Answer(answer)

    @route("DELETE /api/repos/delete")
    def delete_repo(self, call: Call) -> Answer:
        body = call.json()
        kind = body.get("type") or "model"
        owner = body.get("organization") or (call.user.name if call.user else "")
        self._write(call, kind, f"{owner}/{body['name']}")
        del self.store.repositories[kind, f"{owner}/{body['name']}"]
        return Answer()

    @route("POST /api/repos/move")
    def move_repo(self, call: Call) -> Answer:
        body = call.json()
        kind, source, target = body.get("type") or "model", body["fromRepo"], body["toRepo"]
        repository = self._write(call, kind, source)
        repository.id = target
        self.store.repositories[kind, target] = self.store.repositories.pop((kind, source))
        return Answer()

    @route(f"PUT /api/{REPO}/settings")
    def settings(self, call: Call, kind: str, repo_id: str) -> Answer:
        repository, body = self._write(call, kind, repo_id), call.json()
        if "visibility" in body or "private" in body:
            repository.private = body.get("visibility") == "private" or body.get("private") is True
        return Answer({"private": repository.private})

    @route("POST /api/validate-yaml")
    def validate_yaml(self, call: Call) -> Answer:
        import yaml

        front = re.match(r"---\n(.*?)\n---", call.json()["content"], flags=re.DOTALL)
        try:
            yaml.safe_load(front.group(1)) if front else None
        except yaml.YAMLError as error:
            return Answer({"errors": [{"message": f"Bad YAML: {error}"}], "warnings": []}, 400)
        return Answer({"errors": [], "warnings": []})

    # Listings

    @route("GET /api/(?P<kind>model|dataset)s")
    def list_repos(self, call: Call, kind: str) -> Answer:
        author = call.query.get("author", [None])[0]
        found = []
        for (repo_kind, _), repository in sorted(self.store.repositories.items()):
            visible = not repository.private or (call.user and call.user.is_member(repository.owner))
            if repo_kind == kind and visible and author in (None, repository.owner):
                info = describe(repository, "main")
                wanted = set(call.query.get("filter", []))
                search = call.query.get("search", [""])[0]
                if wanted <= set(info["tags"]) and search in repository.id:
                    found.append(info)
        if limit := call.query.get("limit"):
            found = found[: int(limit[0])]
        return self._paged(call, found)

    @route(f"GET /api/{REPO}(/revision/{REVISION})?")
    def repo_info(self, call: Call, kind: str, repo_id: str, revision: str = "main") -> Answer:
        repository = self._read(call, kind, repo_id)
        return Answer(describe(repository, revision, blobs="blobs" in call.query))

    @route(f"GET /api/{REPO}/tree/{REVISION}(?:/(?P<folder>.*))?")
    def tree(self, call: Call, kind: str, repo_id: str, revision: str, folder: str = "") -> Answer:
        commit = self._read(call, kind, repo_id).commit(revision)
        found = entries(commit, folder.strip("/"), recursive=_is_true(call, "recursive"))
        if folder and not found:
            raise Refused(404, f"{folder} does not exist on {revision}", "EntryNotFound", commit.oid)
        if _is_true(call, "expand"):
            last = {"id": commit.oid, "title": commit.title, "date": commit.date}
            found = [{**entry, "lastCommit": last} for entry in found]
        return self._paged(call, found)

    @route(f"POST /api/{REPO}/paths-info/{REVISION}")
    def paths_info(self, call: Call, kind: str, repo_id: str, revision: str) -> Answer:
        commit = self._read(call, kind, repo_id).commit(revision)
        if "json" in call.headers.get("content-type", ""):
            paths = call.json()["paths"]
        else:
            paths = [value for key, value in parse_qsl(call.body.decode()) if key == "paths"]
        found = {entry["path"]: entry for entry in entries(commit, "", recursive=True)}
        return Answer([found[path] for path in paths if path in found])

    @route(f"GET /api/{REPO}/commits/{REVISION}")
    def commits(self, call: Call, kind: str, repo_id: str, revision: str) -> Answer:
        def item(commit: Commit) -> dict[str, Any]:
            who = [{"user": commit.author, "avatar": ""}]
            return {
                "id": commit.oid, "title": commit.title, "message": commit.message, "date": commit.date, "authors": who
            }  # fmt: skip

        return self._paged(call, [item(commit) for commit in self._read(call, kind, repo_id).log(revision)])

    def _paged(self, call: Call, items: list[Any]) -> Answer:
        start = int(call.query.get("cursor", ["0"])[0])
        headers = {}
        if self.next_page:
            headers["Link"] = f'<{self.next_page}>; rel="next"'
        elif self.endless or start + self.page < len(items):
            query = {**call.query, "cursor": [str(start + self.page)]}
            text = "&".join(f"{key}={quote(value)}" for key, values in query.items() for value in values)
            path = quote(call.path.replace("\0", "%2F"), safe="/%")
            headers["Link"] = f'<{self.endpoint}{path}?{text}>; rel="next"'
        return Answer(items if self.endless else items[start : start + self.page], headers=headers)

    @route(f"GET /api/{REPO}/discussions")
    def discussions(self, call: Call, kind: str, repo_id: str) -> Answer:
        repository = self._read(call, kind, repo_id)
        found = []
        for ref, oid in repository.pulls.items():
            number = int(ref.rsplit("/", 1)[1])
            made = repository.commits[oid]
            status = "closed" if number in repository.closed else "open"
            if call.query.get("status", [status]) == [status]:
                found.append(
                    {"num": number, "title": made.title, "status": status, "isPullRequest": True,
                     "author": {"name": made.author}, "createdAt": made.date, "repo": {"name": repo_id, "type": kind}}
                )  # fmt: skip
        return Answer({"discussions": found, "count": len(found), "start": 0})

    # Branches and tags

    @route(f"GET /api/{REPO}/refs")
    def refs(self, call: Call, kind: str, repo_id: str) -> Answer:
        repository = self._read(call, kind, repo_id)

        def listed(names: dict[str, str], prefix: str) -> list[dict[str, str]]:
            return [{"name": name, "ref": prefix + name, "targetCommit": oid} for name, oid in names.items()]

        answer = {
            "branches": listed(repository.branches, "refs/heads/"), "tags": listed(repository.tags, "refs/tags/"),
            "converts": [],
        }  # fmt: skip
        if "include_prs" in call.query:
            answer["pullRequests"] = listed(repository.pulls, "")
        return Answer(answer)

    @route(f"POST /api/{REPO}/branch/(?P<branch>.+)")
    def create_branch(self, call: Call, kind: str, repo_id: str, branch: str) -> Answer:
        repository = self._write(call, kind, repo_id)
        if branch in repository.branches:
            raise Refused(409, f"Reference already exists: {branch}")
        start = call.json().get("startingPoint") or "main"
        repository.branches[branch] = repository.commit(start).oid
        return Answer()

    @route(f"DELETE /api/{REPO}/branch/(?P<branch>.+)")
    def delete_branch(self, call: Call, kind: str, repo_id: str, branch: str) -> Answer:
        if self._write(call, kind, repo_id).branches.pop(branch, None) is None:
            raise Refused(404, f"No branch {branch}", "RevisionNotFound")
        return Answer()

    @route(f"POST /api/{REPO}/tag/{REVISION}")
    def create_tag(self, call: Call, kind: str, repo_id: str, revision: str) -> Answer:
        repository, tag = self._write(call, kind, repo_id), call.json()["tag"]
        if tag in repository.tags:
            raise Refused(409, f"Tag reference exists already: {tag}")
        repository.tags[tag] = repository.commit(revision).oid
        return Answer()

    @route(f"DELETE /api/{REPO}/tag/(?P<tag>.+)")
    def delete_tag(self, call: Call, kind: str, repo_id: str, tag: str) -> Answer:
        if self._write(call, kind, repo_id).tags.pop(tag, None) is None:
            raise Refused(404, f"No tag {tag}", "RevisionNotFound")
        return Answer()

    # Uploading

    @route(f"POST /api/{REPO}/preupload/{REVISION}")
    def preupload(self, call: Call, kind: str, repo_id: str, revision: str) -> Answer:
        repository = self._write(call, kind, repo_id)
        tree = repository.commit(revision).tree
        files = []
        for file in call.json()["files"]:
            path, size = file["path"], file["size"]
            lfs = self.lfs_everywhere
            lfs = repository.is_lfs(path, size, revision) if lfs is None else lfs
            present = tree.get(path)
            mode = "lfs" if lfs else "regular"
            files.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": present and present.etag})
        return Answer({"files": files})

    @route(f"POST {PREFIX}\\.git/info/lfs/objects/batch")
    def lfs_batch(self, call: Call, repo_id: str, prefix: str = "") -> Answer:
        kind = prefix.rstrip("s/") or "model"
        repository, body = self._write(call, kind, repo_id), call.json()
        if "basic" not in body["transfers"]:
            raise Refused(422, "The test Hub speaks the basic transfer only")
        objects = []
        for item in body["objects"]:
            answer = {"oid": item["oid"], "size": item["size"]}
            if item["oid"] not in repository.lfs_objects:
                place = f"/lfs/{kind}/{repo_id}/{item['oid']}"
                answer["actions"] = {
                    "upload": {"href": f"{self.storage}{place}?signature=s3cret"},
                    **({"verify": {"href": f"{self.endpoint}{place}/verify"}} if self.verify else {}),
                }
            objects.append(answer)
        return Answer({"transfer": "basic", "objects": objects})

    @route("PUT /lfs/(?P<kind>[^/]+)/(?P<repo_id>[^/]+/[^/]+)/(?P<oid>[0-9a-f]{64})")
    def lfs_put(self, call: Call, kind: str, repo_id: str, oid: str) -> Answer:
        if call.query.get("signature") != ["s3cret"]:
            raise Refused(403, "SignatureDoesNotMatch")
        if hashlib.sha256(call.body).hexdigest() != oid:
            raise Refused(400, "BadDigest")
        if self.lose_uploads:
            self.lose_uploads -= 1
            return Answer()
        self.store.repositories[kind, repo_id].lfs_objects[oid] = call.body
        return Answer()

    @route("POST /lfs/(?P<kind>[^/]+)/(?P<repo_id>[^/]+/[^/]+)/(?P<oid>[0-9a-f]{64})/verify")
    def lfs_verify(self, call: Call, kind: str, repo_id: str, oid: str) -> Answer:
        repository, size = self._write(call, kind, repo_id), call.json()["size"]
        if len(repository.lfs_objects.get(oid, b"")) != size:
            raise Refused(404, "Object is missing or of another size")
        return Answer()

    @route(f"POST /api/{REPO}/commit/{REVISION}")
    def commit(self, call: Call, kind: str, repo_id: str, revision: str) -> Answer:
        as_pull = _is_true(call, "create_pr")
        repository = self._read(call, kind, repo_id) if as_pull else self._write(call, kind, repo_id)
        if call.user is None:
            raise Refused(401, "Invalid username or password.")
        lines = [json.loads(line) for line in call.body.splitlines()]
        header = next(line["value"] for line in lines if line["key"] == "header")
        head = repository.commit(revision)
        if header.get("parentCommit", head.oid) != head.oid:
            raise Refused(412, "A commit has happened since. Please refresh and try again.")
        tree = dict(head.tree)
        for line in lines:
            repository.apply(tree, line["key"], line["value"])
        commit = repository.add_commit(
            tree, parent=head.oid, title=header["summary"], author=call.user.name, message=header["description"]
        )
        prefix = "" if kind == "model" else f"{kind}s/"
        url = f"{self.endpoint}/{prefix}{repo_id}/commit/{commit.oid}"
        answer = {"success": True, "commitOid": commit.oid, "commitUrl": url}
        if as_pull:
            number = len(repository.pulls) + 1
            repository.pulls[f"refs/pr/{number}"] = commit.oid
            answer["pullRequestUrl"] = f"{self.endpoint}/{prefix}{repo_id}/discussions/{number}"
        elif revision in repository.branches:
            repository.branches[revision] = commit.oid
        elif revision in repository.pulls:
            repository.pulls[revision] = commit.oid
        else:
            raise Refused(400, f"{revision} is not a branch")
        return Answer(answer)

    # Downloading

    @route(f"(GET|HEAD) (?:/api/resolve-cache)?{PREFIX}/resolve/{REVISION}/(?P<path>.+)")
    def resolve(self, call: Call, repo_id: str, revision: str, path: str, prefix: str = "") -> Answer:
        kind = prefix.rstrip("s/") or "model"
        commit = self._read(call, kind, repo_id).commit(revision)
        blob = commit.tree.get(path)
        if blob is None:
            raise Refused(404, "Entry not found", "EntryNotFound", commit.oid)
        headers = {"X-Repo-Commit": commit.oid, "ETag": f'"{blob.git_oid}"', "Accept-Ranges": "bytes"}
        if blob.lfs:
            headers |= {"X-Linked-Etag": f'"{blob.sha256}"', "X-Linked-Size": str(blob.size)}
            if self.redirect:
                place = f"{self.storage}/cdn/{kind}/{repo_id}/{blob.sha256}?signature=s3cret"
                return Answer(b"", 302, {**headers, "Location": place})
            headers["ETag"] = f'"{blob.sha256}"'
        return _content(call, blob, headers)

    @route("(GET|HEAD) /cdn/(?P<kind>[^/]+)/(?P<repo_id>[^/]+/[^/]+)/(?P<oid>[0-9a-f]{64})")
    def cdn(self, call: Call, kind: str, repo_id: str, oid: str) -> Answer:
        blobs = (
            blob
            for commit in self.store.repositories[kind, repo_id].commits.values()
            for blob in commit.tree.values()
            if blob.sha256 == oid
        )
        return _content(call, next(blobs), {"ETag": f'"{oid}"', "Accept-Ranges": "bytes"})


def _is_true(call: Call, name: str) -> bool:
    return call.query.get(name, ["0"])[0].lower() in ("1", "true")


def _content(call: Call, blob: Blob, headers: dict[str, str]) -> Answer:
    """A file's bytes, or the part of them that a Range header asks for."""
    data = blob.data
    headers = {**headers, "Content-Length": str(blob.size)}
    if wanted := re.fullmatch(r"bytes=(\d+)-(\d*)", call.headers.get("range", "")):
        start, stop = int(wanted[1]), int(wanted[2] or len(data) - 1) + 1
        if start >= len(data):
            return Answer(b"", 416, {**headers, "Content-Range": f"bytes */{len(data)}", "Content-Length": "0"})
        part = data[start:stop]
        headers |= {
            "Content-Range": f"bytes {start}-{start + len(part) - 1}/{len(data)}", "Content-Length": str(len(part))
        }  # fmt: skip
        return Answer(part, 206, headers)
    return Answer(data, 200, headers)
