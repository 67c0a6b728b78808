"""A checkpoint as a folder of its own, on request with the code to load it where urzoo is not installed.

transformers loads such code (`trust_remote_code=True`) from the files beside the weights, and follows only
imports of the form `from .x import y`. So `flatten` takes the modules of urzoo that a model needs and writes
each as one file of a flat folder, every `from urzoo.a.b import x` rewritten to `from .urzoo_a_b import x`;
modules of `urzoo.models` keep their names. Of the recurrence's back ends only the reference travels: the
others are looked for by name where they run, and found missing.

`auto_map`, which says what class is in what file, stands in config.json alone, for the image processor too.
In preprocessor_config.json transformers' pipelines would also take it for the map of a video processor, ask
whether to run it, and run it with urzoo imported. That file must then name no `image_processor_type`.
"""

import ast
import importlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch

import urzoo
from urzoo.errors import CheckpointError, UsageError, unknown
from urzoo.files import check_empty, expanded, new_folder, write_bytes, write_json
from urzoo.hub import contents
from urzoo.hub.card import CARD, write_card
from urzoo.hub.eval_results import FOLDER
from urzoo.hub.folder import check_checkpoint, refuse_link
from urzoo.hub.merge import is_generated
from urzoo.hub.samples import SAMPLES
from urzoo.onnx import export_onnx
from urzoo.schema import read_json, read_text
from urzoo.zoo.loading import load
from urzoo.zoo.lookup import TRAINING_FILE, read_config, training_summary
from urzoo.zoo.lookup import path as find_checkpoint
from urzoo.zoo.weights import INDEX_FILE, weights_files, weights_sha256

_MODELS = "urzoo.models"
_CONFIGURATION = "configuration_urlstm.URLSTMConfig"
_BASE_MODEL = "modeling_urlstm.URLSTMModel"
_PREPROCESSOR = "preprocessor_config.json"
_IMAGE_PROCESSOR = "image_processing_urlstm.PixelSequenceImageProcessor"
_AUTO_CLASSES = ("ForImageClassification", "ForSequenceClassification", "ForCausalLM")
STORED = {"bfloat16": torch.bfloat16, "float32": torch.float32}
"""The types that weights may be stored in."""
# What a module is called where siblings import it as a whole (`from urzoo.recurrence import reference`).
_WHOLE_MODULE = "THIS_MODULE"


@dataclass(frozen=True)
class Exported:
    """An exported checkpoint: its folder and the names of its files."""

    folder: Path
    files: tuple[str, ...]
    has_code: bool


def export(
    name_or_folder: str | Path,
    out: str | Path,
    *,
    with_code: bool = False,
    onnx: bool = False,
    dtype: str | None = None,
) -> Exported:
    """Write a checkpoint to a new folder, complete or not at all.

    Args:
        name_or_folder: The name of a shipped checkpoint, or a checkpoint folder.
        out: The folder to make; it must not exist, or be empty.
        with_code: Whether the folder carries the code, and so loads without urzoo by
            `AutoModelFor...from_pretrained(out, trust_remote_code=True)`.
        onnx: Whether the folder also holds the model as `model.onnx`, see `urzoo.onnx.to_onnx`.
        dtype: The type that the weights' matrices are stored in, "bfloat16" or "float32"; as they are when omitted. The
            model loads in float32 either way. Results and samples do not go along: they are of other weights.

    Raises:
        UsageError: There is no such checkpoint or type, or `out` holds something; or `onnx` without its packages, or of
            a model that is not urzoo's.
        CheckpointError: The checkpoint is incomplete or damaged; nothing was written.
        UrzooError: `out` cannot be written; nothing was written.
    """
    if dtype is not None and dtype not in STORED:
        raise UsageError(unknown("dtype", dtype, STORED))
    source, target = find_checkpoint(name_or_folder), expanded(out)
    check_empty(target)
    check_checkpoint(source)
    classes = _auto_map(source) if with_code else {}
    code = flatten(sorted({f"{_MODELS}.{reference.split('.')[0]}" for reference in classes.values()}))
    with new_folder(target) as folder:
        for path in sorted(source.rglob("*")):
            name = path.relative_to(source).as_posix()
            if contents.is_checkpoint_file(name) and not path.is_dir():
                refuse_link(path)
                copy = folder / name
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_bytes(_adapted(path, classes))
        if dtype is not None:
            _store(folder, dtype)
        if onnx:
            export_onnx(load(folder), folder / "model.onnx")
        for name, text in code.items():
            (folder / name).write_text(text, encoding="utf-8")
        files = tuple(sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()))
    return Exported(target, files, bool(code))


def _store(folder: Path, dtype: str) -> None:
    """Store the weights of a checkpoint in another type, and make its other files say so."""
    from safetensors.torch import load_file, save_file

    stored_bytes = 0
    for file in weights_files(folder):
        # Vectors stay as they are: biases and norms take no room, and time scales depend on the gates' biases.
        stored = {
            name: _nearest(tensor, STORED[dtype]) if tensor.is_floating_point() and tensor.ndim > 1 else tensor
            for name, tensor in load_file(file).items()
        }
        stored_bytes += sum(tensor.nbytes for tensor in stored.values())
        save_file(stored, file, metadata={"format": "pt"})
        # safetensors makes its files readable to their owner alone.
        write_bytes(file, file.read_bytes())
    if (index := folder / INDEX_FILE).is_file():
        content = read_json(index, error=CheckpointError)
        write_json(index, content | {"metadata": content.get("metadata", {}) | {"total_size": stored_bytes}})
    # What transformers loads them as.
    config = read_config(folder) | {"dtype": "float32"}
    write_json(folder / contents.CONFIG, config)
    if (summary := training_summary(folder)) is not None:
        summary = summary.model_copy(update={"weights_sha256": weights_sha256(folder)})
        write_json(folder / TRAINING_FILE, summary.model_dump(mode="json"))
    shutil.rmtree(folder / FOLDER, ignore_errors=True)
    (folder / SAMPLES).unlink(missing_ok=True)
    if (folder / "recipe.yaml").is_file():
        write_card(folder, [])
    elif (card := folder / CARD).is_file() and is_generated(read_text(card, error=CheckpointError)):
        card.unlink()  # it tells the results of other weights, and without a recipe nothing says what these are called


def _nearest(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """`tensor` in another type, rounded once: torch goes from float64 to 16 bits by way of float32."""
    if tensor.dtype == torch.float64 and dtype != torch.float32:
        single = tensor.float()
        cut = torch.where(
            single.double().abs() > tensor.abs(), torch.nextafter(single, torch.zeros_like(single)), single
        )
        # An odd last bit stands for what was cut off: no tie any more, and on the same side of one.
        tensor = torch.where(cut.double() == tensor, cut, (cut.view(torch.int32) | 1).view(torch.float32))
    return tensor.to(dtype)


def flatten(roots: list[str]) -> dict[str, str]:
    """The modules `roots` and all of urzoo that they import, as files of one flat folder.

    Args:
        roots: Names of modules, such as "urzoo.models.modeling_urlstm".

    Returns:
        File names and their text.
    """
    texts: dict[str, str] = {}
    whole: set[str] = set()
    waiting = list(roots)
    while waiting:
        module = waiting.pop()
        if module not in texts:
            texts[module], imported, imported_whole = _rewritten(module)
            waiting += imported
            whole |= imported_whole
    for module in whole:
        texts[module] += f"\nimport sys  # noqa: E402\n\n{_WHOLE_MODULE} = sys.modules[__name__]\n"
    note = f"# Copied from urzoo {urzoo.__version__} (Apache-2.0) by `urzoo export`; do not edit.\n"
    return {f"{_flat(module)}.py": note + texts[module] for module in sorted(texts)}


def _auto_map(source: Path) -> dict[str, str]:
    """transformers' Auto classes, and where in the exported code each finds its class."""
    architecture = read_config(source)["architectures"][0]
    models = importlib.import_module(_MODELS)
    if architecture not in models.__all__:
        raise CheckpointError(
            f"{source / contents.CONFIG}: architecture {architecture!r} is none that urzoo can export."
        )
    home = getattr(models, architecture).__module__.rsplit(".", 1)[1]
    classes = {"AutoConfig": _CONFIGURATION, "AutoModel": _BASE_MODEL}
    for suffix in _AUTO_CLASSES:
        if architecture.endswith(suffix):
            classes[f"AutoModel{suffix}"] = f"{home}.{architecture}"
    if (source / _PREPROCESSOR).is_file():
        classes["AutoImageProcessor"] = _IMAGE_PROCESSOR
    return classes


def _adapted(path: Path, classes: dict[str, str]) -> bytes:
    """A file's content, with the `auto_map` of this export or none, whatever map the checkpoint came with."""
    if path.name not in (contents.CONFIG, _PREPROCESSOR, "tokenizer_config.json"):
        return path.read_bytes()
    before = read_json(path, error=CheckpointError)
    after = {key: value for key, value in before.items() if key != "auto_map"}
    if path.name == contents.CONFIG and classes:
        after = {"auto_map": classes, **after}
    if path.name == _PREPROCESSOR:
        after.pop("image_processor_type", None)
        if not classes:
            after["image_processor_type"] = _IMAGE_PROCESSOR.split(".")[1]
    return path.read_bytes() if after == before else (json.dumps(after, indent=2, ensure_ascii=False) + "\n").encode()


def _source_of(module: str) -> Path | None:
    """The file of a module of urzoo, None if there is no such module."""
    path = Path(urzoo.__file__).parent.joinpath(*module.split(".")[1:])
    if (path / "__init__.py").is_file():
        return path / "__init__.py"
    return path.with_suffix(".py") if path.with_suffix(".py").is_file() else None


def _flat(module: str) -> str:
    return module.removeprefix(f"{_MODELS}.").replace(".", "_")


def _rewritten(module: str) -> tuple[str, list[str], set[str]]:
    """A module's text with flat imports, what it imports, and what of that it imports as a whole module."""
    path = _source_of(module)
    if path is None:
        raise ValueError(f"urzoo has no module {module}")
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines(keepends=True)
    imported: list[str] = []
    whole: set[str] = set()
    # From the last to the first, so that earlier line numbers stay right.
    for node in sorted(ast.walk(ast.parse(text)), key=lambda node: -getattr(node, "lineno", 0)):
        if isinstance(node, ast.Import) and any(name.name.split(".")[0] == "urzoo" for name in node.names):
            raise ValueError(f"{path}:{node.lineno} imports a module of urzoo by `import`; write `from ... import`")
        if not isinstance(node, ast.ImportFrom) or (node.module or "").split(".")[0] != "urzoo":
            continue
        parent = str(node.module)
        modules = [name for name in node.names if _source_of(f"{parent}.{name.name}")]
        names = [name for name in node.names if name not in modules]
        new = []
        if names:
            imported.append(parent)
            new.append(f"from .{_flat(parent)} import {', '.join(map(_as, names))}")
        for name in modules:
            whole.add(f"{parent}.{name.name}")
            imported.append(f"{parent}.{name.name}")
            new.append(f"from .{_flat(imported[-1])} import {_WHOLE_MODULE} as {name.asname or name.name}")
        indent = " " * node.col_offset
        lines[node.lineno - 1 : node.end_lineno] = [f"{indent}{line}\n" for line in new]
    return "".join(lines), imported, whole


def _as(name: ast.alias) -> str:
    return f"{name.name} as {name.asname}" if name.asname else name.name
