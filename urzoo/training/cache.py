"""What can be made again, such as tokens: made once, and found again by the digest of what it is made of."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from urzoo.errors import DataError, one_line
from urzoo.files import whole_folder
from urzoo.schema import content_sha256

Found = TypeVar("Found")


def made_once(
    parent: Path, key: dict[str, Any], *, make: Callable[[Path], object], read: Callable[[Path], Found]
) -> Found:
    """What a folder of the cache holds; it is made first where there is none, and then there as a whole.

    Args:
        parent: The folder of its kind in the cache.
        key: What it is a function of.
        make: Writes into a folder.
        read: Reads such a folder; OSError or ValueError where it is damaged.

    Raises:
        DataError: The folder is damaged.
    """
    folder = parent / content_sha256(key)
    if not folder.is_dir():
        with whole_folder(folder) as made:
            make(made)
    try:
        return read(folder)
    except (OSError, ValueError) as failure:
        raise DataError(
            f"{folder} is damaged ({one_line(failure)}). Delete that folder; it is made again."
        ) from failure
