"""Strict reading of the project's own files: one base class, and errors of one line that name the key.

Every file format of urzoo (data sets, tasks, recipes, training summaries, results) is a pydantic model
derived from `Strict`: unknown keys, wrong types, NaN and infinities are refused. YAML is held to the
same rules as JSON, so that `yes`, dates and octal numbers cannot slip in as something else.
"""

import contextlib
import hashlib
import json
import math
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

from urzoo.errors import UrzooError, near_matches, one_line

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
# Names become file names, Markdown cells and command arguments: nothing that could leave a folder or break a table.
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$", max_length=96)]
# A commit of the code; `-dirty` as in `git describe --dirty`: files of the package differed from that commit.
GitCommit = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}(-dirty)?$")]
Line = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]*$", max_length=500)]
# No count comes near it, and what is computed of one fits into 64 bits.
LARGEST_COUNT = 2**40
Positive = Annotated[int, Field(ge=1, le=LARGEST_COUNT)]
Count = Annotated[int, Field(ge=0, le=LARGEST_COUNT)]
# What numpy's oldest generator takes.
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Seconds = Annotated[float, Field(ge=0)]
# A moment in UTC to the second, as ISO 8601 writes it.
Moment = Annotated[str, StringConstraints(pattern=r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z$")]


def _as_written(value: Any, check: ValidatorFunctionWrapHandler) -> Any:
    checked = check(value)
    return value if isinstance(value, int) else checked


# A number that may be written without a point. It stays as it was written, 10 or 10.0, because a file's digest must be
# the same whether it was taken of the content that was read or of the model.
Number = Annotated[float, WrapValidator(_as_written), PlainSerializer(lambda number: number)]

_LARGEST_FILE_BYTES = 4 * 1024 * 1024
# PyYAML takes a second for each hundred thousand characters.
LARGEST_YAML = 64 * 1024


class Strict(BaseModel):
    """A file's content, or a part of it: no unknown keys, no type conversions, only finite numbers."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False, protected_namespaces=())


Model = TypeVar("Model", bound=BaseModel)


def content_sha256(content: Any) -> str:
    """The sha256 of JSON-able content: the same however it was written, with whatever comments and order of keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def read_text(path: Path, *, error: type[UrzooError], most_bytes: int | None = _LARGEST_FILE_BYTES) -> str:
    """The text of a file in UTF-8, of at most so many bytes; whatever is wrong is raised as `error`, in one line."""
    try:
        size = path.stat().st_size
        if most_bytes is not None and size > most_bytes:
            raise error(f"{path} has {size} bytes; expected at most {most_bytes}.")
        return path.read_text(encoding="utf-8")
    except OSError as failure:
        raise error(f"cannot read {path}: {failure.strerror or failure}.") from failure
    except UnicodeDecodeError as failure:
        raise error(f"{path} is not text in UTF-8 (byte {failure.start}).") from failure


def read_json(path: Path, *, error: type[UrzooError]) -> Any:
    """The content of a JSON file; NaN and infinities are refused, as JSON has no such numbers."""
    return parse_json(read_text(path, error=error), path, error=error)


def parse_json(text: str, source: object, *, error: type[UrzooError]) -> Any:
    """The content of a text in JSON, as `read_json`; `source` names it in the message."""

    def refuse(constant: str) -> None:
        raise error(f"{source} holds {constant}, which is no JSON number.")

    try:
        return json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError) as failure:  # also a number of too many digits
        raise error(f"{source} is not JSON: {one_line(failure)}.") from failure


def read_yaml(path: Path, *, error: type[UrzooError]) -> Any:
    """The content of a YAML file; a key that stands twice is refused, and so are aliases."""
    return parse_yaml(read_text(path, error=error), path, error=error)


def parse_yaml(text: str, source: object, *, error: type[UrzooError]) -> Any:
    """The content of a text in YAML, as `read_yaml`; `source` names it in the message."""
    if len(text) > LARGEST_YAML:
        raise error(f"{source} has {len(text)} characters; expected at most {LARGEST_YAML} of YAML.")
    try:
        return yaml.load(text, Loader=_Plain)
    except (yaml.YAMLError, ValueError, RecursionError) as failure:
        # PyYAML does not know the file's name, which stands before.
        said = one_line(str(failure).replace('in "<unicode string>", ', "in "))
        raise error(f"{source} is not YAML: {said}.") from failure


def validated(model: type[Model], content: Any, source: object, *, error: type[UrzooError]) -> Model:
    """`content` as a `model`.

    Args:
        model: The schema.
        content: What a JSON or YAML file held.
        source: Where it came from, for the message.
        error: What to raise, with a message of one line that names the first offending key.
    """
    try:
        text = json.dumps(content)  # NaN and infinities pass here: the schema refuses them with their key
    except (TypeError, ValueError) as failure:
        raise error(f"{source} holds what JSON cannot: {one_line(failure)}.") from failure
    try:
        return model.model_validate_json(text)
    except ValidationError as failure:
        raise error(f"{source}: {describe(failure, model)}") from failure


def describe(failure: ValidationError, model: type[BaseModel] | None = None) -> str:
    """The first complaint of a model's validation in one line, and how many more there are."""
    details = failure.errors(include_url=False, include_context=False)
    # An unknown key first: it may be one that is missing, misspelt.
    first = next((one for one in details if one["type"] == "extra_forbidden"), details[0])
    place, key = first["loc"][:-1], ".".join(str(part) for part in first["loc"]) or "the file"
    more = f" ({len(details) - 1} more like this.)" if len(details) > 1 else ""
    if first["type"] == "extra_forbidden":
        absent = [str(one["loc"][-1]) for one in details if one["type"] == "missing" and one["loc"][:-1] == place]
        meant = near_matches(first["loc"][-1], absent)
        return f"unknown key {_shortened(key)}.{meant or more}"
    if first["type"] == "missing":
        return f"key {key} is missing.{more}"
    said, value = one_line(first["msg"], 300).removeprefix("Value error, "), first["input"]
    if first["type"] == "value_error" and isinstance(value, dict):  # of several keys, which it names
        return f"{f'key {_shortened(key)}: ' if first['loc'] else ''}{said}.{more}"
    return f"key {_shortened(key)} is {_shortened(repr(value))}: {said}{_to_type(first, model)}.{more}"


def _to_type(complaint: Any, model: type[BaseModel] | None) -> str:
    """What to write in place of a value of the wrong type, where pydantic's words do not say it."""
    if complaint["type"] == "float_type" and isinstance(text := complaint["input"], str):
        with contextlib.suppress(ValueError):
            # YAML takes 5e-4, without a point, for a text.
            return f", as in {yaml.safe_dump(float(text)).split()[0]}" if math.isfinite(float(text)) else ""
    if complaint["type"] == "model_type" and model is not None:
        for part in complaint["loc"]:
            field = model.model_fields.get(part)
            kinds = () if field is None else (field.annotation, *get_args(field.annotation))
            found = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
            if len(found) != 1:
                return ""
            model = found[0]
        return f" with the keys {', '.join(model.model_fields)}"
    return ""


def _shortened(text: str, length: int = 80) -> str:
    return text if len(text) <= length else f"{text[: length - 3]}..."


class _Plain(yaml.SafeLoader):
    """YAML lets the last of two equal keys win; here that is an error. So are aliases: nine lines of them can stand
    for a billion values."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, "an alias (*), write the value itself", event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 - the base's signature
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str | int | float | bool | None):
                raise yaml.constructor.ConstructorError(None, None, "a key that is no name", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} stands twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep=deep)
