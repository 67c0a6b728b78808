"""A whole training step of a model beside the bare recurrence in it: how much of the time is spent on the rest.

The step is that of the recipes: forward pass with the loss, backward pass, clipping of the gradient norm, AdamW,
gradients set to None. Shapes with up to four input channels train the image classifier on pixels; wider ones the
language model with a vocabulary of 8,000, its embedding as wide as the shape's input and tied to the output, the
product with the vocabulary in bfloat16.
"""

import contextlib
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from urzoo.benchmark.contenders import Contender, max_time
from urzoo.benchmark.shapes import Shape
from urzoo.models.causal_lm_urlstm import URLSTMForCausalLM
from urzoo.models.classification_urlstm import URLSTMForImageClassification
from urzoo.models.configuration_urlstm import URLSTMConfig
from urzoo.recurrence import Gating

WIDEST_IMAGE = 4  # channels
VOCABULARY = 8000
GRADIENT_NORM_CLIP = 1.0


class TrainingStep:
    """One optimiser step of a model around urzoo's layer of a shape; calling it takes a step on the same batch."""

    def __init__(self, contender: Contender, shape: Shape, gating: Gating, device: torch.device) -> None:
        generator = torch.Generator().manual_seed(0)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self._model = _model(contender, shape, gating)
        self._model.to(device)  # type: ignore[arg-type]
        self._model.train()
        if shape.input_size <= WIDEST_IMAGE:
            pixels = torch.rand(shape.batch, shape.time, shape.input_size, generator=generator)
            batch = {"pixel_values": pixels, "labels": torch.randint(0, 10, (shape.batch,), generator=generator)}
        else:
            tokens = torch.randint(0, VOCABULARY, (shape.batch, shape.time + 1), generator=generator)
            batch = {"input_ids": tokens[:, :-1], "shift_labels": tokens[:, 1:]}
        self._batch: dict[str, Any] = {name: value.to(device) for name, value in batch.items()}
        if shape.input_size > WIDEST_IMAGE:
            self._batch["compute_logits"] = False
        self._autocast = (
            torch.autocast(device.type, torch.bfloat16) if contender.dtype == "bf16" else contextlib.nullcontext()
        )
        self._parameters = [value for value in self._model.parameters() if value.requires_grad]
        self._optimiser = torch.optim.AdamW(self._parameters, lr=1e-3, weight_decay=0.01, fused=True)

    def __call__(self) -> Tensor:
        """Take one step; returns the loss before it."""
        with self._autocast:
            loss: Tensor = self._model(**self._batch).loss
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self._parameters, GRADIENT_NORM_CLIP)
        self._optimiser.step()
        self._optimiser.zero_grad()
        return loss.detach()


def has_model(contender: Contender) -> bool:
    """Whether there is a model to train around this contender: the models are urzoo's, and always save activations."""
    return contender.family == "urzoo" and contender.save == "activations"


def _model(contender: Contender, shape: Shape, gating: Gating) -> PreTrainedModel:
    fields: dict[str, Any] = {
        "cell": gating.cell,
        **gating.options,
        "max_time": max_time(gating, shape),
        "hidden_size": shape.hidden_size,
        "backend": contender.backend,
    }
    if shape.input_size <= WIDEST_IMAGE:
        fields |= {"input_size": shape.input_size, "num_labels": 10}
        return URLSTMForImageClassification(URLSTMConfig(**fields))
    return URLSTMForCausalLM(
        URLSTMConfig(**fields, vocab_size=VOCABULARY, embedding_size=shape.input_size, head_dtype="bfloat16")
    )
