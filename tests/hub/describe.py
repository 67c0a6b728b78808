"""What the test Hub says about a repository: its info and its tree, in the Hub's JSON."""

import json
import re
from typing import Any

import yaml

from .store import Blob, Commit, Repository


def describe(repository: Repository, revision: str, *, blobs: bool = False) -> dict[str, Any]:
    """The answer of /api/models/{id} and /api/datasets/{id}."""
    commit = repository.commit(revision)
    card = _front_matter(commit)
    config = _config(commit)
    info: dict[str, Any] = {
        "_id": repository.id,
        "id": repository.id,
        "author": repository.owner,
        "sha": commit.oid,
        "lastModified": commit.date,
        "createdAt": commit.date,
        "private": repository.private,
        "gated": False,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": _tags(commit, card, config),
        "cardData": card,
        "siblings": [{"rfilename": path} for path in sorted(commit.tree)],
    }
    if blobs:
        info["siblings"] = [
            {"rfilename": entry["path"], "size": entry["size"], "blobId": entry["oid"]}
            for entry in entries(commit, "", recursive=True)
            if entry["type"] == "file"
        ]
    if repository.kind == "model":
        info["modelId"] = repository.id
        info["config"] = {key: config[key] for key in ("architectures", "model_type") if key in config}
        for key in ("pipeline_tag", "library_name"):
            if key in card:
                info[key] = card[key]
        info["evalResults"] = _eval_results(commit)
        if "model-index" in card:
            info["model-index"] = card["model-index"]
    return info


def entries(commit: Commit, folder: str, *, recursive: bool) -> list[dict[str, Any]]:
    """The answer of /tree: files, and the folders that lead to them."""
    found: dict[str, dict[str, Any]] = {}
    prefix = f"{folder}/" if folder else ""
    for path, blob in sorted(commit.tree.items()):
        if not path.startswith(prefix):
            continue
        inner = path[len(prefix) :].split("/")
        for depth in range(1, len(inner)):
            parent = prefix + "/".join(inner[:depth])
            found.setdefault(parent, {"type": "directory", "oid": "0" * 40, "size": 0, "path": parent})
            if not recursive:
                break
        if recursive or len(inner) == 1:
            found[path] = _file(path, blob)
    return list(found.values())


def _file(path: str, blob: Blob) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "oid": blob.git_oid, "size": blob.size, "path": path}
    if blob.lfs:
        entry["lfs"] = {"oid": blob.sha256, "size": blob.size, "pointerSize": len(blob.pointer)}
    return entry


def _front_matter(commit: Commit) -> dict[str, Any]:
    card = commit.tree.get("README.md", Blob(b"")).data.decode(errors="replace")
    front = re.match(r"---\n(.*?)\n---", card, flags=re.DOTALL)
    try:
        content = yaml.safe_load(front.group(1)) if front else None
    except (yaml.YAMLError, TypeError):
        content = None
    return content if isinstance(content, dict) else {}


def _eval_results(commit: Commit) -> list[dict[str, Any]]:
    """The entries of `.eval_results/*.yaml`, or what is wrong with a file, as the Hub gives them."""
    found: list[dict[str, Any]] = []
    for path, blob in sorted(commit.tree.items()):
        if re.fullmatch(r"\.eval_results/[^/]+\.yaml", path):
            try:
                listed = [{"filename": path, "data": entry} for entry in yaml.safe_load(blob.data)]
            except (yaml.YAMLError, TypeError) as error:
                listed = [{"filename": path, "error": str(error)}]
            found += listed
    return found


def _config(commit: Commit) -> dict[str, Any]:
    try:
        config = json.loads(commit.tree.get("config.json", Blob(b"{}")).data)
    except (ValueError, RecursionError):
        return {}
    return config if isinstance(config, dict) else {}


def _tags(commit: Commit, card: dict[str, Any], config: dict[str, Any]) -> list[str]:
    tags = [str(tag) for tag in card.get("tags") or []]
    tags += [str(card[key]) for key in ("library_name", "pipeline_tag") if key in card]
    if "license" in card:
        tags.append(f"license:{card['license']}")
    if any(path.endswith(".safetensors") for path in commit.tree):
        tags.append("safetensors")
    if "model_type" in config:
        tags.append(str(config["model_type"]))
    if "auto_map" in config:
        tags.append("custom_code")
    return list(dict.fromkeys(tags))
