"""Checkpoints by whatever name they have: one that is shipped, a folder, or a repository of the Hub.

A repository is pulled into urzoo's store, pinned to its commit, before anything is read of it. These are the functions
that `import urzoo` offers; those of `urzoo.zoo` know shipped names and folders only.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from urzoo import zoo
from urzoo.evaluation.recommended import find

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from urzoo.zoo.schema import CheckpointInfo


@dataclass(frozen=True)
class Located:
    """Where a checkpoint is, what results call it, and the commit if it is from the Hub."""

    folder: Path
    name: str
    commit: str | None = None


def locate(name: str | Path, *, warn: Callable[[str], None] = warnings.warn) -> Located:
    """Find a checkpoint; pull it if it is on the Hub.

    Args:
        name: The name of a shipped checkpoint, a checkpoint folder, OWNER/NAME[@REVISION], an hf:// address or that of
            a page of the Hub. What is a folder here is taken for that.
        warn: Told what the user should know of a pull, each in one line.

    Raises:
        UsageError: It is none of these.
        CheckpointError: There is no checkpoint in the folder or the repository.
        HubError: The Hub refused or failed.
        UnreachableError: There is no connection, and no copy that was pulled earlier.
    """
    if is_remote(name):
        from urzoo.hub.pull import pull
        from urzoo.hub.reference import parse_reference

        repo_id, revision = parse_reference(str(name))
        pulled = pull(repo_id, revision, any_model=True)
        for warning in pulled.warnings:
            warn(warning)
        return Located(pulled.folder, repo_id, pulled.commit)
    return Located(find(name), zoo.checkpoint_name(name))


def is_remote(name: str | Path) -> bool:
    """Whether a name is that of a repository: it has the form of one, and there is no such folder here."""
    if not isinstance(name, str) or "/" not in name:
        return False
    from urzoo.hub.reference import is_reference

    return is_reference(name) and ("://" in name or not Path(name).exists())


def path(name: str | Path) -> Path:
    """The folder of a checkpoint; for names and errors see `locate`."""
    return locate(name).folder


def load(
    name: str | Path,
    *,
    backend: str | None = None,
    dtype: "torch.dtype | None" = None,
    device: "str | torch.device" = "cpu",
) -> "PreTrainedModel":
    """The model of a checkpoint, in evaluation mode.

    Args:
        name: See `locate`.
        backend: The recurrence's back end; the fastest usable one when omitted.
        dtype: The type of the weights; float32 when omitted.
        device: Where the model goes.

    Raises:
        UsageError: There is no such checkpoint, or the back end or device is not one.
        CheckpointError: A file of it is missing, damaged or does not fit the others; nothing was built from it.
        HubError: The Hub refused or failed.
    """
    import torch

    return zoo.load(path(name), backend=backend, dtype=dtype or torch.float32, device=device)


def info(name: str | Path) -> "CheckpointInfo":
    """What the zoo knows of a checkpoint; the weights are checked, the model is not built. For errors see `locate`."""
    return described(locate(name))


def described(located: Located) -> "CheckpointInfo":
    """What the zoo knows about a checkpoint that was located."""
    found = zoo.info(located.folder)
    source = found.source if located.commit is None else "Hub"
    return found.model_copy(update={"name": located.name, "source": source})
