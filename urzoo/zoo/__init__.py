"""Checkpoints shipped with the package, and look-up by name or folder."""

from typing import TYPE_CHECKING

from urzoo.zoo.lookup import checkpoint_name, checkpoints, info, path, study_checkpoints

if TYPE_CHECKING:
    from urzoo.zoo.loading import load, load_image_processor, load_tokenizer

__all__ = [
    "checkpoint_name",
    "checkpoints",
    "info",
    "load",
    "load_image_processor",
    "load_tokenizer",
    "path",
    "study_checkpoints",
]


def __getattr__(name: str) -> object:
    # Loading needs torch and transformers, which listing does without.
    if name in {"load", "load_image_processor", "load_tokenizer"}:
        from urzoo.zoo import loading

        return getattr(loading, name)
    raise AttributeError(f"module 'urzoo.zoo' has no attribute {name!r}")
