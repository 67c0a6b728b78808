"""Checkpoints as they are named on the command line: shipped ones, folders, and repositories on the Hub."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from urzoo.cli.output import warn
from urzoo.errors import UrzooError, UsageError

if TYPE_CHECKING:
    from urzoo.evaluation import Pair, Subject


def subjects(models: Sequence[str]) -> "tuple[list[Subject | str], list[Pair]]":
    """The checkpoints as named or pulled, and the failures of those that the Hub does not give."""
    from urzoo.evaluation import Pair

    found, broken = [], []
    for model in models:
        try:
            found.append(subject(model))
        except UsageError:
            raise
        except UrzooError as failure:
            broken.append(Pair("failed", "", model, None, str(failure), failure))
    return found, broken


def subject(model: str) -> "Subject | str":
    """A checkpoint as named, or the one pulled from the Hub."""
    from urzoo.hub.names import is_remote, locate

    if not is_remote(model):
        return model
    from urzoo.evaluation import Subject

    located = locate(model, warn=warn)
    return Subject.of(located.folder, name=located.name, revision=located.commit)


def name_in_results(model: str) -> str:
    """What results call a model: the repository, with the digits of what it holds where a revision is named."""
    from urzoo.hub.names import is_remote

    if not is_remote(model):
        return model
    from urzoo.hub.reference import parse_reference

    repo_id, revision = parse_reference(model)
    if revision is None:
        return repo_id
    from urzoo.evaluation import result_name
    from urzoo.hub.names import described, locate

    return result_name(described(locate(model, warn=warn)))


def named_folder(model: str) -> tuple[str, Path]:
    """What results call a checkpoint, and its folder; one of the Hub is pulled."""
    from urzoo.evaluation import Subject

    named = subject(model)
    found = Subject.of(named) if isinstance(named, str) else named
    return found.name, found.info.folder
