"""What a checkpoint repository may hold: the names urzoo sends and takes, and those it refuses.

One list for both directions, so that what a push sends is what a pull takes.
"""

import re
import unicodedata
from collections.abc import Iterable

from urzoo.hub.guard import HubError
from urzoo.zoo.lookup import DECIDING
from urzoo.zoo.weights import INDEX_FILE

WEIGHTS = "model.safetensors"
CONFIG = "config.json"
CARD = "README.md"
CURVE = "learning_curve.png"

# Files of a checkpoint, by full path: what transformers reads, and what training and the card generator write.
_CHECKPOINT = re.compile(
    "|".join(map(re.escape, DECIDING))
    + r"""
      | model\.safetensors | model-\d{5}-of-\d{5}\.safetensors | model\.safetensors\.index\.json | chat_template\.jinja
      | README\.md | LICENSE(\.(md|txt))? | recipe\.yaml | training\.json | log\.jsonl | learning_curve\.png
      | samples\.json
      | \.eval_results/[A-Za-z0-9][A-Za-z0-9._-]*\.yaml""",
    re.VERBOSE,
)
_CODE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\.py")
# The code that `export` writes: modules of urzoo.models under their names, the others under their whole ones.
_OWN_CODE = re.compile(r"(urzoo_\w+|\w+_urlstm)\.py", re.ASCII)
_PICKLED = re.compile(r".*\.(bin|ckpt|dill|h5|joblib|keras|npy|npz|pickle|pkl|pt|pth|msgpack|onnx|pb)", re.IGNORECASE)
# Names that other systems keep for devices; a folder that holds one cannot be moved there.
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)

LARGEST_WEIGHTS_BYTES = 4 * 1024**3
LARGEST_OTHER_BYTES = 64 * 1024**2
# Read as a whole by Python, which takes a hundred times their size for it.
LARGEST_CONFIG_BYTES = 1024**2


def is_checkpoint_file(path: str) -> bool:
    """Whether a repository's file is one that a checkpoint consists of."""
    return _CHECKPOINT.fullmatch(path) is not None


def is_code(path: str) -> bool:
    """Whether a file is Python code, as `export` writes it for `trust_remote_code`."""
    return _CODE.fullmatch(path) is not None


def is_own_code(path: str) -> bool:
    """Whether a file has the name of code that `export` writes, and so a push of urzoo may have sent it."""
    return _OWN_CODE.fullmatch(path) is not None


def is_pickled(path: str) -> bool:
    """Whether a file looks like weights in a format that urzoo does not load, most of which can run code."""
    return _PICKLED.fullmatch(path) is not None


def is_weights(path: str) -> bool:
    """Whether a file holds tensors."""
    return path.endswith(".safetensors")


def stale_weights(present: Iterable[str], new: Iterable[str]) -> set[str]:
    """The weights files of a place that are not among its new ones, beside or instead of which they would be loaded."""
    weights = {path for path in present if is_checkpoint_file(path) and (is_weights(path) or path == INDEX_FILE)}
    return weights - set(new) if any(map(is_weights, new)) else set()


def largest_bytes(path: str) -> int:
    """The size above which a file is refused."""
    if path.endswith(("config.json", ".yaml")):
        return LARGEST_CONFIG_BYTES
    return LARGEST_WEIGHTS_BYTES if is_weights(path) else LARGEST_OTHER_BYTES


def check_names(paths: Iterable[str]) -> None:
    """Refuse a repository with a name that could leave the folder it is written to, or hide in a listing.

    Raises:
        HubError: A path is absolute or escapes, holds control characters, backslashes or a drive, is reserved
            on some system, or differs from another by case or accents only.
    """
    seen: dict[str, str] = {}
    for path in paths:
        parts = path.split("/")
        if (
            not path
            or len(path.encode("utf-8", "surrogatepass")) > 1000
            or any(part in ("", ".", "..", ".git") or part != part.strip() or part.endswith(".") for part in parts)
            or any(_RESERVED.fullmatch(part) or len(part) > 200 for part in parts)
            or any(char in '\\:*?"<>|' or not char.isprintable() for char in path)
        ):
            raise HubError(f"the repository holds a file with a hostile name, {path!a}; nothing was taken from it")
        folded = unicodedata.normalize("NFKC", path).casefold()
        if seen.setdefault(folded, path) != path:
            raise HubError(
                f"the repository holds {seen[folded]!a} and {path!a}, which are one file on some systems;"
                " nothing was taken from it"
            )
