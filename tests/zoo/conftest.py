"""A small checkpoint made on the spot."""

from pathlib import Path

import pytest
import torch

from urzoo.models import PixelSequenceImageProcessor, URLSTMConfig, URLSTMForImageClassification, pixel_permutation


def make_checkpoint(folder: Path, *, permutation_seed: int | None = None, seed: int = 0, **fields: object) -> Path:
    """An untrained classifier of MNIST images with its processor, complete but for its card."""
    torch.manual_seed(seed)
    classes = [str(digit) for digit in range(10)]
    labels = {"id2label": dict(enumerate(classes)), "label2id": {name: i for i, name in enumerate(classes)}}
    config = URLSTMConfig(**{"hidden_size": 8, "head_hidden_size": 12, **labels, **fields})
    URLSTMForImageClassification(config).save_pretrained(folder)
    order = None if permutation_seed is None else pixel_permutation(784, permutation_seed)
    PixelSequenceImageProcessor(pixel_order=order).save_pretrained(folder)
    return folder


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return make_checkpoint(tmp_path / "small")
