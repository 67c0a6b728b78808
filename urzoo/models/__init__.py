"""The models as transformers knows them: configuration, modelling, image processor, cache.

Names are resolved when first used, because the modelling code needs torch and most of transformers.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from urzoo.models.cache_urlstm import URLSTMCache
    from urzoo.models.causal_lm_urlstm import URLSTMForCausalLM
    from urzoo.models.classification_urlstm import URLSTMForImageClassification, URLSTMForSequenceClassification
    from urzoo.models.configuration_urlstm import URLSTMConfig
    from urzoo.models.image_processing_urlstm import PixelSequenceImageProcessor, pixel_permutation
    from urzoo.models.modeling_urlstm import URLSTMModel, URLSTMPreTrainedModel
    from urzoo.models.stream_urlstm import ClassifierStream

__all__ = [
    "ClassifierStream",
    "PixelSequenceImageProcessor",
    "URLSTMCache",
    "URLSTMConfig",
    "URLSTMForCausalLM",
    "URLSTMForImageClassification",
    "URLSTMForSequenceClassification",
    "URLSTMModel",
    "URLSTMPreTrainedModel",
    "pixel_permutation",
]

_HOMES = {
    "ClassifierStream": "stream_urlstm",
    "PixelSequenceImageProcessor": "image_processing_urlstm",
    "URLSTMCache": "cache_urlstm",
    "URLSTMConfig": "configuration_urlstm",
    "URLSTMForCausalLM": "causal_lm_urlstm",
    "URLSTMForImageClassification": "classification_urlstm",
    "URLSTMForSequenceClassification": "classification_urlstm",
    "URLSTMModel": "modeling_urlstm",
    "URLSTMPreTrainedModel": "modeling_urlstm",
    "pixel_permutation": "image_processing_urlstm",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'urzoo.models' has no attribute {name!r}")
    return getattr(import_module(f"urzoo.models.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
