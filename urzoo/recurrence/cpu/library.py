"""The compiled libraries of the fused CPU back end: which ones run here, and how they are called.

`setup.py` compiles the C++ source once per variant. The best variant that the processor has the instructions
for is loaded at import; the environment variable URZOO_CPU_VARIANT names another one.
"""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

VARIANTS = ("amx", "avx512bf16", "avx512", "avx2", "baseline")
"""From the fastest to the one that every processor runs; only "baseline" exists off x86-64.

"amx" is the library of "avx512bf16" with its products of bfloat16 on the processor's matrix tiles.
"""

INTERFACE = 7
"""`kInterface` of source/arguments.h: raised with it whenever a function changes its meaning."""

REMEDY = (
    "install a C++17 compiler such as g++ and install urzoo again "
    "(`pip install --force-reinstall --no-deps .`, or with -e, in its folder)"
)

_SIZES = (
    *("batch", "time", "input_size", "hidden_size", "tied", "refined", "master", "ordered", "reverse"),
    *("bf16", "weights_bf16", "rounded", "raised", "lowered", "segment", "threads"),
)
_POINTERS = (
    *("inputs", "input_weight", "recurrent_weight", "bias", "gate_bias", "hidden", "cell", "mask", "packed"),
    *("outputs", "final_hidden", "final_cell", "saved"),
    *("outputs_grad", "final_hidden_grad", "final_cell_grad"),
    *("inputs_grad", "input_weight_grad", "recurrent_weight_grad", "bias_grad", "hidden_grad", "cell_grad"),
)


class Arguments(ctypes.Structure):
    """The structure `Arguments` of source/arguments.h, field by field."""

    _fields_ = [(name, ctypes.c_int64) for name in _SIZES] + [(name, ctypes.c_void_p) for name in _POINTERS]


@dataclass(frozen=True)
class Library:
    """One loaded variant; `width` is the number of floats in its vectors."""

    variant: str
    width: int
    handle: ctypes.CDLL

    def choose(self) -> "Library":
        """Make the calls of the library run this variant; two share one library."""
        self.handle.urzoo_use_tiles(int(self.variant == "amx"))
        return self

    def run(self, function: str, **fields: Tensor | int | None) -> None:
        """Call `urzoo_<function>` on `Arguments` with these fields; tensors must be contiguous.

        Raises:
            MemoryError: There is no memory for the workspace.
        """
        self.call(function, arguments_of(**fields))

    def call(self, function: str, arguments: Arguments) -> None:
        """The same with `Arguments` that are made already."""
        if getattr(self.handle, f"urzoo_{function}")(ctypes.byref(arguments)):
            raise MemoryError(f"no memory for the workspace of {function} in the fused CPU back end")

    def size(self, function: str, arguments: Arguments) -> int:
        """The number of floats that `function` says the packed weights of `Arguments` of such sizes take."""
        return int(getattr(self.handle, f"urzoo_{function}")(ctypes.byref(arguments)))


def arguments_of(**fields: Tensor | int | None) -> Arguments:
    """`Arguments` with the fields that are given, the others zero or null."""
    arguments = Arguments()
    for name, value in fields.items():
        if value is not None:
            setattr(arguments, name, value.data_ptr() if isinstance(value, Tensor) else int(value))
    return arguments


def _path(variant: str) -> Path:
    return Path(__file__).with_name(f"_fused_{'avx512bf16' if variant == 'amx' else variant}.so")


def _handle(path: Path) -> ctypes.CDLL | str:
    """A compiled library, or why it cannot be had."""
    if not path.exists():
        return f"{path.name} was not compiled at installation; {REMEDY}"
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        return f"{path.name} cannot be loaded ({error}); {REMEDY}"


def _open(variant: str) -> Library | str:
    """The library of a variant, or why it cannot be had."""
    path = _path(variant)
    handle = _handle(path)
    if isinstance(handle, str):
        return handle
    if not _is_ours(handle):
        return f"{path.name} was compiled from another version of its source; {REMEDY}"
    for function in (handle.urzoo_packed_size, handle.urzoo_gru_packed_size):
        function.restype = ctypes.c_int64
    return Library(variant, int(handle.urzoo_vector_width()), handle)


def _is_ours(handle: ctypes.CDLL) -> bool:
    """Whether a library was compiled from a source with this interface."""
    interface = getattr(handle, "urzoo_interface", None)
    return (
        interface is not None and interface() == INTERFACE and handle.urzoo_arguments_size() == ctypes.sizeof(Arguments)
    )


def _runnable() -> list[str] | str:
    """The variants whose instructions this processor has and whose library is there, or why there is none."""
    chooser = _handle(Path(__file__).with_name("_variants.so"))
    if isinstance(chooser, str):
        return chooser
    there = [name for name in VARIANTS if _path(name).exists()]
    runnable = [name for name in there if chooser.urzoo_supports(name.encode())]
    if there and not runnable:
        return f"{_path(there[0]).name} was compiled for another processor than this; {REMEDY}"
    return runnable or f"{_path('baseline').name} was not compiled at installation; {REMEDY}"


def load(variant: str | None = None) -> Library | str:
    """The library of a variant (the best one when omitted), or why the back end cannot run."""
    runnable = _runnable()
    if isinstance(runnable, str):
        return runnable
    if variant is not None and variant not in runnable:
        return f"URZOO_CPU_VARIANT is {variant!r}, expected one of {', '.join(runnable)}"
    opened = _open(variant or runnable[0])
    return opened.choose() if isinstance(opened, Library) else opened


def variants() -> list[str]:
    """The variants that run on this machine, fastest first."""
    runnable = _runnable()
    return [] if isinstance(runnable, str) else [name for name in runnable if isinstance(_open(name), Library)]


_loaded = load(os.environ.get("URZOO_CPU_VARIANT") or None)


def not_loaded() -> str:
    """Why no library is loaded; "" if one is."""
    return _loaded if isinstance(_loaded, str) else ""


def current() -> Library:
    """The library in use.

    Raises:
        RuntimeError: None could be loaded; `not_loaded` says why.
    """
    if isinstance(_loaded, str):
        raise RuntimeError(_loaded)
    return _loaded


@contextmanager
def using(variant: str) -> Iterator[Library]:
    """Run everything on another variant within a `with` block, in all threads of the process."""
    global _loaded
    before, library = _loaded, load(variant)
    if isinstance(library, str):
        raise RuntimeError(library)
    _loaded = library
    try:
        yield library
    finally:
        _loaded = before.choose() if isinstance(before, Library) else before
