"""From a recipe's file to the recipe, whatever its kind, and what is wrong with it in one line."""

import json
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from urzoo.errors import RecipeError, unknown
from urzoo.schema import describe, parse_yaml, read_text
from urzoo.training.kinds import kind_of
from urzoo.training.recipe import BaseRecipe


def load_recipe(path: Path | str) -> BaseRecipe:
    """Read the recipe at `path`, of whatever kind.

    Raises:
        RecipeError: The file cannot be read, or a key is unknown (near matches are named), missing or impossible.
    """
    return read_recipe(path)[0]


def read_recipe(path: Path | str) -> tuple[BaseRecipe, bytes]:
    """The recipe at `path`, and the bytes it was read from, comments included.

    Raises:
        RecipeError: As `load_recipe`.
    """
    written = read_text(Path(path), error=RecipeError)
    content = parse_yaml(written, path, error=RecipeError)
    if not isinstance(content, dict):
        raise RecipeError(f"{path} holds no keys; expected a recipe: {', '.join(BaseRecipe.model_fields)}.")
    try:
        # Through JSON, so that YAML's dates and other extras are refused as in every other file of the project.
        text = json.dumps(content)  # NaN and infinities pass here: the schema refuses them with their key
        kind = kind_of(content)
    except RecipeError as failure:
        raise RecipeError(f"{path}: {failure}") from failure
    except (TypeError, ValueError) as failure:
        raise RecipeError(f"{path} holds a value that is no number, text, list or switch: {failure}.") from failure
    try:
        return kind.model_validate_json(text), written.encode()
    except ValidationError as failure:
        raise RecipeError(f"{path}: {_complaint(failure, kind)}") from failure


def differences(old: BaseRecipe, new: BaseRecipe) -> list[str]:
    """The keys in which two recipes differ, each as `key: old -> new`."""
    before, after = _flat(old.model_dump(mode="json")), _flat(new.model_dump(mode="json"))
    return [
        f"{key}: {before.get(key)} -> {after.get(key)}"
        for key in sorted(before | after)
        if before.get(key) != after.get(key)
    ]


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def _complaint(failure: ValidationError, kind: type[BaseModel]) -> str:
    """The first complaint in one line; misspelt keys first, as they often explain the missing ones."""
    errors = failure.errors(include_url=False, include_context=False)
    for error in errors:
        if error["type"] == "extra_forbidden":
            *parents, key = (str(part) for part in error["loc"])
            keys = _keys_at(parents, kind)
            message = unknown("recipe key", key, keys)
            return f"{message[:-1]} in {'.'.join(parents)}." if parents else message
    if errors[0]["type"] == "missing":
        keys = [".".join(str(part) for part in error["loc"]) for error in errors if error["type"] == "missing"]
        return (
            f"recipe key {keys[0]} is missing; a recipe writes every key ({len(keys)} missing: {', '.join(keys[:8])})."
        )
    if errors[0]["type"] == "value_error":
        message = errors[0]["msg"].removeprefix("Value error, ")
        # The check of one key does not know where that key stands.
        key = f"key {'.'.join(str(part) for part in errors[0]['loc'])} " if message.startswith("is ") else ""
        return f"{key}{message.rstrip('.')}."
    return describe(failure)


def _keys_at(parents: list[str], kind: type[BaseModel]) -> list[str]:
    """The keys that a recipe of this kind has below the key path `parents`."""
    options = [kind]
    for part in parents:
        fields = [model.model_fields[part] for model in options if part in model.model_fields]
        if fields:
            options = _models(fields[0].annotation)
        else:
            # The number of a list's entry, or which of several kinds of a section is meant.
            kinds = [model for model in options if "kind" in model.model_fields]
            options = [m for m in kinds if part in get_args(m.model_fields["kind"].annotation)] or options
    return list(options[0].model_fields)


def _models(annotation: Any) -> list[type[BaseModel]]:
    """The sections that a key's type names: itself, the entries of a list, the alternatives of a union."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models(part)]
