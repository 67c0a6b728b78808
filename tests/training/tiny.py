"""A tiny recipe and tiny data for tests of training: striped images whose class is their brightest row."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from urzoo.data import Split
from urzoo.data.schema import load_data_set

TINY = {
    "name": "tiny",
    "task": "smnist",
    "licence": "apache-2.0",
    "architecture": "URLSTMForImageClassification",
    "model": {
        "cell": "lstm",
        "gate": "UR",
        "tie_input_gate": True,
        "train_gate_bias": True,
        "refine_offset": True,
        "max_time": None,
        "input_size": 1,
        "hidden_size": 4,
        "num_layers": 1,
        "bidirectional": False,
        "layer_dropout": 0.0,
        "weight_dropout": 0.0,
        "residual": False,
        "layer_norm": False,
        "head_hidden_size": 8,
        "head_dropout": 0.3,
    },
    "processor": {
        "height": 28,
        "width": 28,
        "do_grayscale": True,
        "image_mean": [0.13],
        "image_std": [0.31],
        "permutation_seed": None,
    },
    "data": {"name": "mnist", "split": "train", "validation_rows": 10, "validation_seed": 0},
    "augmentation": {"shift_pixels": 1, "flip_horizontal": True},
    "optimiser": {
        "learning_rate": 0.02,
        "weight_decay": 0.1,
        "beta1": 0.9,
        "beta2": 0.99,
        "epsilon": 1e-8,
        "gradient_norm_clip": 1.0,
    },
    "schedule": {"kind": "one-cycle", "warmup_fraction": 0.25, "initial_fraction": 0.1, "final_fraction": 0.0},
    "run": {"batch_size": 8, "epochs": 2, "precision": "fp32", "seed": 3, "weight_average_decay": 0.9},
    "cadence": {"log_every_steps": 3, "save_every_steps": 2, "validate_every_epochs": 1},
    "selection": {"checkpoint": "best", "metric": "cross_entropy"},
}


def tiny_recipe(folder: Path, **changes: Any) -> Path:
    """A recipe file; changes are given as `section__key=value` or `key=value`."""
    content = {key: dict(value) if isinstance(value, dict) else value for key, value in TINY.items()}
    for path, value in changes.items():
        *parents, key = path.split("__")
        place: Any = content
        for parent in parents:
            place = place[parent]
        place[key] = value
    file = folder / "recipe.yaml"
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    return file


def tiny_data(rows: int = 45) -> Split:
    """Images of ten classes; the digest is of the pixels, as the real one is of the content."""
    generator = np.random.default_rng(0)
    labels = np.arange(rows, dtype=np.int64) % 10
    images = generator.integers(0, 60, size=(rows, 28, 28), dtype=np.uint8)
    images[np.arange(rows), 2 * labels + 4] = 255
    digest = hashlib.sha256(images.tobytes()).hexdigest()
    return Split(load_data_set("mnist"), "train", digest, "data root", {"image": images, "label": labels})
