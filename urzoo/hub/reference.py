"""How a repository of the Hub is named: OWNER/NAME[@REVISION], an hf:// address, or the address of its page."""

import re
from urllib.parse import unquote, urlsplit

from huggingface_hub import constants
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from urzoo.errors import UsageError
from urzoo.hub.plan import Kind

_CALLED = {"model": "model", "dataset": "data set", "space": "Space"}
_EXAMPLE = "for example alice/urlstm-128-smnist"
# What stands between a repository and a revision in the address of a page.
_PAGES = frozenset({"tree", "blob", "resolve", "raw", "commit", "commits"})


def parse_reference(reference: str, kind: Kind = "model") -> tuple[str, str | None]:
    """A repository and, if one is named, a revision.

    Args:
        reference: OWNER/NAME[@REVISION], hf://OWNER/NAME[@REVISION], or the address of a page of the repository.
        kind: What it is one of; an address of another kind is refused.

    Raises:
        UsageError: It is none of these.
    """
    if re.match(r"https?://", reference):
        return _of_page(reference, kind)
    name = reference.removeprefix("hf://")
    if name != reference:
        name = name.removeprefix(f"{kind}s/").rstrip("/")
        if name.startswith(("models/", "datasets/", "spaces/", "buckets/")):
            expected = "hf://OWNER/NAME" if kind == "model" else f"hf://{kind}s/OWNER/NAME"
            raise UsageError(f"{reference!r} names no {_CALLED[kind]}; expected {expected}, {_EXAMPLE}")
    repo_id, _, revision = name.partition("@")
    if "@" in name and not revision:
        raise UsageError(f"repository {reference!r} ends in '@'; name a branch, tag or commit after it, or omit it")
    return check_repo_id(repo_id), check_revision(unquote(revision)) if revision else None


def is_reference(name: str) -> bool:
    """Whether a name can only mean a repository of the Hub, or has the form of one: OWNER/NAME[@REVISION]."""
    if re.match(r"(https?|hf)://", name):
        return True
    return re.fullmatch(r"[\w.-]+/[\w.-]+(@\S*)?", name) is not None and not name.startswith(".")


def check_repo_id(repo_id: str) -> str:
    """`repo_id`, if it is of the form OWNER/NAME.

    Raises:
        UsageError: It is not.
    """
    expected = f"repository {repo_id!r} is not OWNER/NAME, {_EXAMPLE}"
    if repo_id.count("/") != 1:
        raise UsageError(expected)
    try:
        validate_repo_id(repo_id)
    except HFValidationError:
        raise UsageError(expected) from None
    return repo_id


def check_revision(
    revision: str, kind: str = "revision", what: str = "a branch, tag or commit, for example main"
) -> str:
    """`revision`, if it can be the name of `what`; a message calls it `kind`.

    Raises:
        UsageError: It cannot.
    """
    if not re.fullmatch(r"(?!.*(\.\.|//|@\{))[A-Za-z0-9_][\w./+-]*", revision, flags=re.ASCII) or len(revision) > 200:
        raise UsageError(f"{kind} {revision!r} is not the name of {what}")
    return revision


def _of_page(address: str, kind: Kind) -> tuple[str, str | None]:
    parts, endpoint = urlsplit(address), urlsplit(constants.ENDPOINT)
    if parts.netloc not in ("huggingface.co", "hf.co", "www.huggingface.co", endpoint.netloc):
        raise UsageError(
            f"address {address!r} is not one of the Hub at {endpoint.netloc}; expected OWNER/NAME, {_EXAMPLE}"
        )
    path = parts.path.removeprefix(endpoint.path.rstrip("/") if parts.netloc == endpoint.netloc else "")
    named = path.strip("/").split("/")
    found = named.pop(0) if named[0] in ("datasets", "spaces") else "models"
    owner, name, *rest = [*named, "", ""]
    if found != f"{kind}s":
        raise UsageError(f"address {address!r} is of no {_CALLED[kind]}; expected that of OWNER/NAME, {_EXAMPLE}")
    repo_id = check_repo_id(f"{owner}/{name.removesuffix('.git')}")
    if rest[:1] and rest[0] in _PAGES:
        revision = "/".join(rest[1:4]) if rest[1:3] == ["refs", "pr"] else unquote(rest[1])
        return repo_id, check_revision(revision) if revision else None
    return repo_id, None
