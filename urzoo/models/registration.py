"""Makes transformers' Auto classes know urzoo's models once `import urzoo` has run, without importing torch.

Registering takes the classes themselves, and those take seconds of imports, which a program that only
asks for help or lists checkpoints should not wait for. So nothing is registered before transformers' own
Auto modules are imported, which whoever can use them has done; a finder waits for that.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from types import ModuleType

_CONFIGURATION = "transformers.models.auto.configuration_auto"
_IMAGES = "transformers.models.auto.image_processing_auto"
_MODELS = "transformers.models.auto.modeling_auto"
_PIPELINES = "transformers.pipelines"
# Not Auto modules, but they import one midway, when urzoo's classes cannot be imported yet; so do urzoo's own.
_WATCHED = frozenset({_CONFIGURATION, _IMAGES, _MODELS, _PIPELINES, "transformers.modeling_layers"})
_OWN = "urzoo.models."


class _Watcher(importlib.abc.MetaPathFinder):
    """Sees the watched modules being imported, and registers when the outermost of them is complete."""

    def __init__(self) -> None:
        self.depth = 0
        self.looking_up: set[str] = set()

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> importlib.machinery.ModuleSpec | None:
        """The module's real spec with a loader that reports back; None for all other modules."""
        if not (fullname in _WATCHED or fullname.startswith(_OWN)) or fullname in self.looking_up:
            return None
        self.looking_up.add(fullname)
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            self.looking_up.discard(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _ReportingLoader(spec.loader, self)
        return spec


class _ReportingLoader(importlib.abc.Loader):
    """Loads as the real loader does, and counts how deep in watched modules the import is."""

    def __init__(self, loader: importlib.abc.Loader, watcher: _Watcher) -> None:
        self.loader = loader
        self.watcher = watcher

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        """As the real loader."""
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """As the real loader; registers afterwards unless another watched module is still being imported."""
        if module.__spec__ is not None:
            module.__spec__.loader = self.loader
        module.__loader__ = self.loader
        self.watcher.depth += 1
        try:
            self.loader.exec_module(module)
        finally:
            self.watcher.depth -= 1
        if self.watcher.depth == 0:
            _register_loaded()


def register() -> None:
    """Register now with the Auto classes that are imported already, and with the others as they are."""
    if not any(isinstance(finder, _Watcher) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Watcher())
    _register_loaded()


def _register_loaded() -> None:
    if _CONFIGURATION in sys.modules:
        _register_configuration()
    if _IMAGES in sys.modules:
        _register_image_processor()
    if _MODELS in sys.modules:
        _register_models()
    if _PIPELINES in sys.modules:
        _register_pipeline()


def _register_configuration() -> None:
    from transformers.models.auto.configuration_auto import AutoConfig

    from urzoo.models.configuration_urlstm import URLSTMConfig

    AutoConfig.register(URLSTMConfig.model_type, URLSTMConfig, exist_ok=True)


def _register_image_processor() -> None:
    from transformers.models.auto.image_processing_auto import AutoImageProcessor

    from urzoo.models.configuration_urlstm import URLSTMConfig
    from urzoo.models.image_processing_urlstm import PixelSequenceImageProcessor

    AutoImageProcessor.register(
        URLSTMConfig, image_processor_classes={"pil": PixelSequenceImageProcessor}, exist_ok=True
    )


def _register_models() -> None:
    from transformers.models.auto import modeling_auto as auto

    from urzoo.models.causal_lm_urlstm import URLSTMForCausalLM
    from urzoo.models.classification_urlstm import URLSTMForImageClassification, URLSTMForSequenceClassification
    from urzoo.models.configuration_urlstm import URLSTMConfig
    from urzoo.models.modeling_urlstm import URLSTMModel

    for auto_class, model_class, names in (
        (auto.AutoModel, URLSTMModel, auto.MODEL_MAPPING_NAMES),
        (auto.AutoModelForCausalLM, URLSTMForCausalLM, auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES),
        (
            auto.AutoModelForImageClassification,
            URLSTMForImageClassification,
            auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES,
        ),
        (
            auto.AutoModelForSequenceClassification,
            URLSTMForSequenceClassification,
            auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
        ),
    ):
        auto_class.register(URLSTMConfig, model_class, exist_ok=True)
        # By these tables of names the Trainer shifts labels for label smoothing, and cards are tagged.
        names[URLSTMConfig.model_type] = model_class.__name__


def _register_pipeline() -> None:
    from transformers.pipelines import PIPELINE_REGISTRY

    from urzoo.models.pipeline_urlstm import PixelSequencePipeline

    # `register_pipeline` would warn that the task is known, and forget its models.
    PIPELINE_REGISTRY.supported_tasks["image-classification"]["impl"] = PixelSequencePipeline
