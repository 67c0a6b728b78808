"""The urzoo checkpoints of an owner on the Hub, found by the tag that every generated card carries."""

import re
from dataclasses import dataclass

from huggingface_hub.hf_api import ModelInfo

from urzoo.errors import UsageError
from urzoo.hub.connection import Connection, Patience
from urzoo.hub.reference import check_repo_id

TAG = "urzoo"


@dataclass(frozen=True)
class HubCheckpoint:
    """A model repository that says it holds a checkpoint of urzoo.

    Attributes:
        repo_id: OWNER/NAME, which `pull` takes.
        commit: Where its main branch stands.
        pipeline_tag: The pipeline its card names, such as "image-classification".
        private: Whether only its owner sees it.
        updated: The day of the last commit, as YYYY-MM-DD.
    """

    repo_id: str
    commit: str | None
    pipeline_tag: str | None
    private: bool
    updated: str | None


def list_hub(
    owner: str,
    *,
    search: str | None = None,
    token: str | None = None,
    endpoint: str | None = None,
    patience: Patience | None = None,
) -> tuple[HubCheckpoint, ...]:
    """The checkpoints of an owner, in order of name; private ones only with a token that may see them.

    Args:
        owner: A user or an organisation.
        search: What must be in the name; all when omitted.
        token: An access token; the one huggingface_hub finds when omitted.
        endpoint: The Hub's address; huggingface_hub's (HF_ENDPOINT) when omitted.
        patience: How often and how long to try.

    Raises:
        UsageError: `owner` cannot be the name of one.
        UnreachableError: There is no connection.
        HubError: The Hub refused, or failed until patience ended.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}", owner):
        raise UsageError(f"owner {owner!r} is not the name of a user or organisation of the Hub, for example alice")
    if search is not None and (not search.isprintable() or not 1 <= len(search) <= 100):
        raise UsageError(f"search {search[:80]!r} is not a part of a name, for example smnist")
    connection = Connection(endpoint, token, patience)
    found = connection.attempt(
        f"listing the models of {owner}",
        lambda: list(connection.api.list_models(author=owner, filter=TAG, search=search, full=True)),
    )
    listed = (checkpoint for model in found if (checkpoint := _checkpoint(model, owner)) is not None)
    return tuple(sorted(listed, key=lambda checkpoint: checkpoint.repo_id))


def _checkpoint(model: ModelInfo, owner: str) -> HubCheckpoint | None:
    """What the Hub says of a model, as far as it is of the form that it must have: it goes to terminals and scripts."""
    try:
        check_repo_id(model.id)
    except UsageError:
        return None
    if model.id.split("/")[0].lower() != owner.lower():
        return None
    return HubCheckpoint(
        repo_id=model.id,
        commit=model.sha if re.fullmatch("[0-9a-f]{40}", model.sha or "") else None,
        pipeline_tag=model.pipeline_tag if re.fullmatch("[a-z0-9-]{1,64}", model.pipeline_tag or "") else None,
        private=bool(model.private),
        updated=model.last_modified.date().isoformat() if model.last_modified else None,
    )
