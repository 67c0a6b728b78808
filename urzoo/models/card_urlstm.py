"""The model card that a model saved or pushed from Python goes with: what its configuration says, and no more.

`urzoo card` writes a fuller one where a checkpoint has its training record and results.
"""

# mypy: disable-error-code="no-untyped-call, override, arg-type"
# (transformers is annotated in part only)

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData
from transformers.modeling_utils import PreTrainedModel
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

from urzoo.markdown import markdown
from urzoo.models.configuration_urlstm import URLSTMConfig

_EMPTY_CARD = "Model Card for Model ID"
TAGS = ("urzoo", "ur-lstm", "recurrent-neural-network")
PIPELINES = {
    "ForImageClassification": "image-classification",
    "ForSequenceClassification": "text-classification",
    "ForCausalLM": "text-generation",
}


def pipeline_of(architecture: str, *, reads_text: bool) -> str | None:
    """The transformers pipeline of an architecture; none for a model that reads series of numbers."""
    found = next((task for suffix, task in PIPELINES.items() if architecture.endswith(suffix)), None)
    return None if found is not None and found.startswith("text-") and not reads_text else found


def basic_card(config: URLSTMConfig, architecture: str, parameters: int, name: str, tags: list[str]) -> str:
    """A README.md: metadata for the Hub, what the model is, and how to load it.

    Args:
        config: The model's.
        architecture: The model's class.
        parameters: Their number.
        name: Of the repository, OWNER/NAME, or of the folder.
        tags: For the metadata.
    """
    pipeline = pipeline_of(architecture, reads_text=config.vocab_size is not None)
    front = ModelCardData(library_name="transformers", pipeline_tag=pipeline, tags=tags).to_yaml()
    call = f"model = AutoModel.from_pretrained({json.dumps(name)})"
    imported = "AutoModel"
    if pipeline is not None:
        call, imported = f"model = pipeline({json.dumps(pipeline)}, model={json.dumps(name)})", "pipeline"
    elif suffix := next((suffix for suffix in PIPELINES if architecture.endswith(suffix)), None):
        call, imported = call.replace("AutoModel", f"AutoModel{suffix}"), f"AutoModel{suffix}"
    kind = f"{markdown(config.gate)}-{config.cell.upper()}"
    layers = f" in each of {config.num_layers} layers" if config.num_layers > 1 else ""
    return f"""---
{front}
---

# {markdown(name)}

A {kind} ({architecture}) with {config.hidden_size} units{layers} and {parameters:,} parameters.

The recurrence is that of [Gu et al. 2020](https://arxiv.org/abs/1910.09890): the first letter of the gating names the
primary gate (`U`: uniform gate initialisation), the second the auxiliary one (`R`: refine gate), `-` means a plain one.

## Use

```python
import urzoo
from transformers import {imported}

{call}
```

## Training, evaluation, licence

Not recorded here; whoever trained the model can tell. `urzoo eval` measures it.
"""


class SavedWithCard(PreTrainedModel):
    """A model whose folder and repository are complete: card, tags, and the processor if one is given."""

    config: URLSTMConfig

    def __init__(self, config: URLSTMConfig) -> None:
        super().__init__(config)
        self.model_tags = list(TAGS)
        self._processing_class: Any = None

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        is_main_process: bool = True,  # noqa: FBT001, FBT002
        *args: Any,
        processing_class: Any = None,
        **kwargs: Any,
    ) -> None:
        """Save as transformers does, with a model card where there is none.

        `processing_class`, a tokenizer or image processor, is saved and pushed beside the model. Of weights in one file
        and in shards those of an earlier save are removed: transformers would load the one file.
        """
        folder = Path(save_directory)
        with self._accompanied_by(processing_class):
            earlier = _weights(folder)
            super().save_pretrained(save_directory, is_main_process, *args, **kwargs)
            if is_main_process and folder.is_dir():
                _remove_stale(earlier, _weights(folder))
                self._complete(folder, folder.resolve().name)

    def push_to_hub(self, repo_id: str, *args: Any, processing_class: Any = None, **kwargs: Any) -> Any:
        """Push as transformers does, with a model card that says what the model is; see `save_pretrained`."""
        with self._accompanied_by(processing_class):
            return super().push_to_hub(repo_id, *args, **kwargs)

    @contextlib.contextmanager
    def _accompanied_by(self, processing_class: Any) -> Iterator[None]:
        # push_to_hub of transformers saves and uploads by methods that know of the model alone.
        before, self._processing_class = self._processing_class, processing_class or self._processing_class
        try:
            yield
        finally:
            self._processing_class = before

    def _upload_modified_files(
        self, working_dir: str | os.PathLike[str], repo_id: str, *args: Any, **kwargs: Any
    ) -> Any:
        self._complete(Path(working_dir), repo_id)
        return super()._upload_modified_files(working_dir, repo_id, *args, **kwargs)

    def _complete(self, folder: Path, name: str) -> None:
        """Add what a repository needs beside configuration and weights."""
        if self._processing_class is not None:
            self._processing_class.save_pretrained(folder)
        card = folder / "README.md"
        # A card that somebody wrote stays; the one transformers makes of its template says nothing of the model.
        if not card.exists() or _EMPTY_CARD in card.read_text(encoding="utf-8", errors="replace"):
            architecture = type(self).__name__
            text = basic_card(self.config, architecture, self.num_parameters(), name, self.model_tags or [])
            card.write_text(text, encoding="utf-8")


def _weights(folder: Path) -> dict[Path, tuple[int, int]]:
    """The file of weights and the index of shards in a folder, each with what a new save of it changes."""
    files = (folder / SAFE_WEIGHTS_NAME, folder / SAFE_WEIGHTS_INDEX_NAME)
    return {file: (file.stat().st_mtime_ns, file.stat().st_ino) for file in files if file.exists()}


def _remove_stale(earlier: dict[Path, tuple[int, int]], present: dict[Path, tuple[int, int]]) -> None:
    stale = dict(earlier.items() & present.items())
    if len(present) == 2 and len(stale) == 1:
        next(iter(stale)).unlink()
