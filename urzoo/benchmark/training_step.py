"""A whole training step of a model beside the bare recurrence in it: how much of the time is spent on the rest.

The step is that of the recipes: forward pass with the loss, backward pass, clipping of the gradient norm, AdamW,
gradients set to None. Shapes with up to four input channels train the image classifier on pixels; wider ones the
language model, embedding as wide as the shape's input.
"""

import contextlib

import torch
from torch import Tensor

from urzoo.benchmark.contenders import Contender
from urzoo.benchmark.shapes import Shape
from urzoo.models.classification_urlstm import URLSTMForImageClassification
from urzoo.models.configuration_urlstm import URLSTMConfig
from urzoo.recurrence import Gating

WIDEST_IMAGE = 4  # channels
GRADIENT_NORM_CLIP = 1.0


class TrainingStep:
    """One optimiser step of a model around urzoo's layer of a shape; calling it takes a step on the same batch."""

    def __init__(self, contender: Contender, shape: Shape, gating: Gating, device: torch.device) -> None:
        generator = torch.Generator().manual_seed(0)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self._model = _image_classifier(contender, shape, gating)
        self._model.to(device)  # type: ignore[arg-type]
        self._model.train()
        self._batch = {
            "pixel_values": torch.rand(shape.batch, shape.time, shape.input_size, generator=generator).to(device),
            "labels": torch.randint(0, 10, (shape.batch,), generator=generator).to(device),
        }
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


def has_model(contender: Contender, shape: Shape) -> bool:
    """Whether there is a model to train around this contender: one of urzoo's, for inputs of this width."""
    # The models choose between saving and recomputing by themselves.
    return contender.family == "urzoo" and contender.save == "activations" and shape.input_size <= WIDEST_IMAGE


def _image_classifier(contender: Contender, shape: Shape, gating: Gating) -> URLSTMForImageClassification:
    config = URLSTMConfig(
        cell=gating.cell,
        gate=gating.name,
        tie_input_gate=gating.tie_input_gate,
        refine_offset=gating.refine_offset,
        max_time=shape.time + 1 if gating.primary == "C" else None,
        input_size=shape.input_size,
        hidden_size=shape.hidden_size,
        num_labels=10,  # type: ignore[call-arg]  # one of transformers' own fields
        backend=contender.backend,
    )
    return URLSTMForImageClassification(config)
