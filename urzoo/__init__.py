"""Model zoo and benchmark harness for UR-LSTM.

After `import urzoo` transformers' Auto classes and pipelines load urzoo's checkpoints like any other;
no code of a checkpoint is ever run. Public names are resolved when first used, so that the import itself
costs next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from urzoo.models.registration import register as _register

if TYPE_CHECKING:
    from urzoo.hub.names import info as info
    from urzoo.hub.names import load as load
    from urzoo.hub.names import path as path
    from urzoo.models import PixelSequenceImageProcessor as PixelSequenceImageProcessor
    from urzoo.models import URLSTMCache as URLSTMCache
    from urzoo.models import URLSTMConfig as URLSTMConfig
    from urzoo.models import URLSTMForCausalLM as URLSTMForCausalLM
    from urzoo.models import URLSTMForImageClassification as URLSTMForImageClassification
    from urzoo.models import URLSTMForSequenceClassification as URLSTMForSequenceClassification
    from urzoo.models import URLSTMModel as URLSTMModel
    from urzoo.nn import URGRU as URGRU
    from urzoo.nn import URLSTM as URLSTM
    from urzoo.nn import URGRUCell as URGRUCell
    from urzoo.nn import URLSTMCell as URLSTMCell
    from urzoo.zoo import checkpoints as checkpoints

    __version__: str

_HOMES = {
    "PixelSequenceImageProcessor": "urzoo.models",
    "URLSTMCache": "urzoo.models",
    "URLSTMConfig": "urzoo.models",
    "URLSTMForCausalLM": "urzoo.models",
    "URLSTMForImageClassification": "urzoo.models",
    "URLSTMForSequenceClassification": "urzoo.models",
    "URLSTMModel": "urzoo.models",
    "URGRU": "urzoo.nn",
    "URGRUCell": "urzoo.nn",
    "URLSTM": "urzoo.nn",
    "URLSTMCell": "urzoo.nn",
    "checkpoints": "urzoo.zoo",
    "info": "urzoo.hub.names",
    "load": "urzoo.hub.names",
    "path": "urzoo.hub.names",
}

__all__ = [*_HOMES]

# Parts of the package that are reached as attributes, such as `urzoo.data.load_split`.
_PARTS = ("data", "evaluation", "models", "nn", "recurrence", "zoo")


def __getattr__(name: str) -> object:
    if name == "__version__":
        return import_module("importlib.metadata").version("urzoo")
    if name in _PARTS:
        return import_module(f"urzoo.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'urzoo' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, *_PARTS, "__version__"})


_register()
