"""What a checkpoint's JSON files may say, looked at before transformers reads them and builds what they ask for.

A few bytes of configuration can ask for gigabytes (a number of classes or layers), and some keys make transformers
fetch code or rest on formats that other packages read. So every number is bounded by what the weights' header holds,
which the file's bytes pay for, and such keys are refused. Code beside the weights (`auto_map`) is ignored, never run.
"""

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from urzoo.errors import CheckpointError
from urzoo.schema import read_json
from urzoo.zoo.weights import Tensor, parameter_count

# Numbers that cost next to nothing to build, whatever the weights hold: defaults that a model does not use.
_SMALL = 1024
_LARGEST_NUMBER = 2**31
_MOST_LAYERS = 512
_LARGEST_NEURAL_CACHE = 10**6
_MOST_PIXELS = 2**22
# Of buffers that a foreign model makes beside its parameters, such as masks of positions by positions.
_BUFFER_ELEMENTS = 2**26

_SIZES = ("input_size", "hidden_size", "embedding_size", "head_hidden_size", "vocab_size")
_LAYERS = re.compile(r"(.*_)?(n|num)?_?(hidden_)?(layers?|blocks?|depths?|stages)", re.IGNORECASE)
_NAMES_CODE = frozenset(
    {
        "quantization_config", "compression_config", "transformers_weights", "custom_generate", "kernel_config",
        "use_kernels", "use_pretrained_backbone",
    }
)  # fmt: skip
# transformers takes any other name of an implementation for a package, and fetches its compiled code.
_IMPLEMENTATIONS = frozenset({None, "eager", "sdpa", "flex_attention"})


def check_config(config: Mapping[str, Any], file: Path | str) -> None:
    """Refuse a configuration that names code, numbers that no model has, or answers of a form that nothing here reads.

    Args:
        config: The content of config.json or generation_config.json.
        file: Where it is from, for the message.

    Raises:
        CheckpointError: It does; the message names the key.
    """
    for key, value in _entries(config):
        names_code = key in _NAMES_CODE and value not in (None, False, {}, [])
        if key.endswith("_implementation") or key == "_attn_implementation_internal":
            values = value.values() if isinstance(value, dict) else [value]
            names_code = any(not isinstance(one, str | None) or one not in _IMPLEMENTATIONS for one in values)
        if names_code:
            raise CheckpointError(
                f"{file}: {key} is {_short(value)}, which names code or a format of other packages; urzoo fetches and "
                "runs none. Take the key out."
            )
        if isinstance(value, int) and abs(value) > _LARGEST_NUMBER:
            raise CheckpointError(f"{file}: {key} is {_short(value)}, expected a number below {_LARGEST_NUMBER}.")
    # Defaults of every call of the model, whose answers are read by name.
    for key in ("return_dict", "use_return_dict"):
        if config.get(key, True) is not True:
            raise CheckpointError(f"{file}: {key} is {_short(config[key])}, expected true. Take the key out.")
    for key in ("output_hidden_states", "output_attentions"):
        if config.get(key) not in (None, False, True):
            raise CheckpointError(f"{file}: {key} is {_short(config[key])}, expected true or false.")
    if (cache := config.get("neural_cache_size")) and isinstance(cache, int) and cache > _LARGEST_NEURAL_CACHE:
        raise CheckpointError(f"{file}: neural_cache_size is {cache}, expected at most {_LARGEST_NEURAL_CACHE} steps.")


def check_sizes(config: Mapping[str, Any], header: Mapping[str, Tensor], file: Path) -> None:
    """Refuse a configuration of a model larger than its weights.

    Args:
        config: The content of config.json.
        header: Of the weights, from `read_header`.
        file: config.json, for the message.

    Raises:
        CheckpointError: It is; the message names the key.
    """
    # A dimension counts where elements stand behind it: (0, 1000000000) takes no byte.
    shapes = [tensor.shape for tensor in header.values() if math.prod(tensor.shape)]
    widest = max((max(shape, default=1) for shape in shapes), default=0)
    own = config.get("model_type") == "urlstm"
    for key, value in _entries(config):
        most = None
        if key == "num_labels" or (own and key in _SIZES):
            most = max(widest, _SMALL)
        elif key in ("id2label", "label2id") and isinstance(value, dict):
            value, most = len(value), max(widest, _SMALL)
        elif _LAYERS.fullmatch(key):
            most = min(len(shapes), _MOST_LAYERS)
        numbers = [one for one in (value if isinstance(value, list) else [value]) if isinstance(one, int)]
        if most is not None and numbers and sum(numbers) > most:
            raise CheckpointError(
                f"{file}: {key} is {_short(value)}, but the weights have {len(shapes)} tensors, the widest of {widest}."
            )
    vocabulary = config.get("vocab_size")
    for key in ("pad_token_id", "bos_token_id", "eos_token_id"):
        ids = config.get(key)
        for one in ids if isinstance(ids, list) else [ids]:
            if own and isinstance(one, int) and isinstance(vocabulary, int) and not 0 <= one < vocabulary:
                raise CheckpointError(f"{file}: {key} is {one}, expected an id below vocab_size, {vocabulary}.")


def check_built(blank: Any, header: Mapping[str, Tensor], weights: Path) -> None:
    """Refuse weights that are not those of a model, by size and kind of number, before memory is given to it.

    Args:
        blank: The model, on torch's device "meta".
        header: Of the weights.
        weights: Their file, for the message.

    Raises:
        CheckpointError: They are not.
    """
    held = parameter_count(header)
    needed = sum(parameter.numel() for parameter in blank.parameters())
    buffers = sum(buffer.numel() for buffer in blank.buffers())
    if needed > 2 * held + _SMALL**2 or buffers > 2 * held + _BUFFER_ELEMENTS:
        raise CheckpointError(
            f"{weights} holds {held} numbers, but the model of its config.json has {needed} parameters and {buffers} "
            "other numbers."
        )
    for name, tensor in blank.state_dict().items():
        if name in header and tensor.is_floating_point() != (header[name].dtype in ("F64", "F32", "F16", "BF16")):
            raise CheckpointError(f"{weights}: {name!r} is of type {header[name].dtype}, expected {tensor.dtype}.")


def check_image_processor(file: Path) -> None:
    """Refuse a preprocessor_config.json of urzoo's that is of another class, or whose values are of another type.

    Raises:
        CheckpointError: It is; the message names the key.
    """
    content = read_json(file, error=CheckpointError)
    if not isinstance(content, dict):
        raise CheckpointError(f"{file} is not a JSON object.")
    for key in ("image_processor_type", "feature_extractor_type", "processor_class"):
        if content.get(key) not in (None, "PixelSequenceImageProcessor"):
            raise CheckpointError(f"{file}: {key} is {_short(content[key])}, expected 'PixelSequenceImageProcessor'.")
    for key, value in content.items():
        if key.startswith("do_") and not isinstance(value, bool):
            raise CheckpointError(f"{file}: {key} is {_short(value)}, expected true or false.")
    size = content.get("size", {})
    numbers = list(size.values()) if isinstance(size, dict) else [size]
    if not all(isinstance(one, int) and not isinstance(one, bool) and one > 0 for one in numbers) or (
        math.prod(numbers) > _MOST_PIXELS
    ):
        raise CheckpointError(
            f"{file}: size is {_short(size)}, expected height and width of at most {_MOST_PIXELS} pixels."
        )
    order = content.get("pixel_order")
    if order is not None and not (isinstance(order, list) and all(type(one) is int for one in order)):
        raise CheckpointError(f"{file}: pixel_order is {_short(order)}, expected a list of pixels' numbers.")


def check_json(folder: Path) -> None:
    """Refuse a folder in which a JSON file that transformers reads is none, or is nested beyond reading.

    Raises:
        CheckpointError: One is; the message names it.
    """
    for name in ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "processor_config.json"):
        if (folder / name).is_file() and not isinstance(read_json(folder / name, error=CheckpointError), dict):
            raise CheckpointError(f"{folder / name} is not a JSON object.")
    generation = folder / "generation_config.json"
    if generation.is_file():
        content = read_json(generation, error=CheckpointError)
        if not isinstance(content, dict):
            raise CheckpointError(f"{generation} is not a JSON object.")
        check_config(content, generation)


def _entries(content: Any) -> Iterator[tuple[str, Any]]:
    """Keys and values at any depth; JSON that was parsed is not nested deeper than Python follows."""
    waiting = [content]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            for key, value in part.items():
                yield str(key), value
                waiting.append(value)
        elif isinstance(part, list):
            waiting.extend(one for one in part if isinstance(one, dict | list))


def _short(value: Any) -> str:
    text = ascii(value) if not isinstance(value, int) or abs(value) < 10**20 else "a number of many digits"
    return text if len(text) <= 80 else f"{text[:77]}..."
