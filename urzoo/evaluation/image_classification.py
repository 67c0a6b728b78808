"""Images read as sequences of pixels, and classified: smnist, pmnist, scifar.

A model of urzoo must see exactly the sequence that the task names: its image processor's size, channels and pixel
order are compared with the task's. Image classifiers of other kinds take whole images, so they are accepted where
the order is the plain one and see the images as their own processor makes them.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from urzoo.data import Split
from urzoo.errors import UsageError
from urzoo.evaluation.classification import Classification
from urzoo.evaluation.journal import Outputs
from urzoo.evaluation.problem import Precision, Rows, consecutive
from urzoo.evaluation.task import Task
from urzoo.models import PixelSequenceImageProcessor, pixel_permutation
from urzoo.zoo import load_image_processor


class ImageClassification(Classification):
    """One image classifier on the images of one split."""

    default_batch_size = 250

    def __init__(self, task: Task, folder: Path, model: Any, split: Split, precision: Precision) -> None:
        """Take the checkpoint's own image processor, and see that it makes what the task demands.

        Raises:
            UsageError: The checkpoint is for another task.
            CheckpointError: Its image processor is missing or malformed.
        """
        self.processor = load_image_processor(folder)
        check_processor(self.processor, task, folder)
        super().__init__(folder, model, split, precision)

    def batches(self, batch_size: int, rows: int) -> Sequence[Rows]:
        """Consecutive images."""
        return consecutive(batch_size, rows)

    def outputs(self, rows: Rows) -> Outputs:
        """The score of every class, `(rows, classes)`, in the data set's order of classes."""
        return self.scores(self.logits(pixel_values=self._pixel_values(self.split.images[rows])), rows)

    def _pixel_values(self, images: npt.NDArray[np.uint8]) -> torch.Tensor:
        prepared: Any = images
        if not isinstance(self.processor, PixelSequenceImageProcessor):
            # Other processors expect what the pipelines hand them: colour images of PIL.
            prepared = [Image.fromarray(image).convert("RGB") for image in images]
        inputs: torch.Tensor = self.processor(images=prepared, return_tensors="pt")["pixel_values"]
        return inputs.to(device=self.precision.device, dtype=self.precision.weights)


def check_processor(processor: Any, task: Task, folder: Path) -> None:
    """Refuse a checkpoint whose image processor does not make the sequence that the task demands.

    Raises:
        UsageError: What differs, in one line.
    """
    wanted = task.requires
    assert wanted is not None
    if not isinstance(processor, PixelSequenceImageProcessor):
        if wanted.pixel_order == "permuted":
            raise UsageError(f"task {task.name} permutes the pixels of a sequence; {folder} reads whole images.")
        return
    found: dict[str, object] = {
        "channels": processor.channels,
        "steps": processor.length,
        "pixel_order": _order_name(processor.pixel_order, task),
    }
    expected = {"channels": wanted.channels, "steps": wanted.steps, "pixel_order": wanted.pixel_order}
    for key, value in expected.items():
        if found[key] != value:
            raise UsageError(
                f"{folder} is no checkpoint for task {task.name}: its image processor has {key} {found[key]}, "
                f"the task requires {value}."
            )


def _order_name(pixel_order: list[int] | None, task: Task) -> str:
    if pixel_order is None or pixel_order == list(range(len(pixel_order))):
        return "raster"
    wanted = task.requires
    assert wanted is not None
    seed = wanted.permutation_seed
    if seed is None or pixel_order == list(pixel_permutation(wanted.steps, seed)):
        return "permuted"
    return "permuted in another way"
