"""Results of a checkpoint as `urzoo eval` writes them, for the tests of what is made of them."""

from pathlib import Path
from typing import Any

from urzoo import zoo
from urzoo.evaluation.schema import Result, parse_result


def result(folder: Path, **changes: Any) -> Result:
    """A result on sequential MNIST, with some keys of the file replaced."""
    checkpoint = zoo.info(folder)
    content = {
        "schema_version": 1,
        "model": {
            "name": checkpoint.name,
            "source": "shipped",
            "revision": None,
            **{
                key: getattr(checkpoint, key)
                for key in ("architecture", "cell", "gate", "hidden_size", "num_layers", "parameters")
            },
            "weights_sha256": checkpoint.weights_sha256,
            "checkpoint_sha256": checkpoint.checkpoint_sha256,
            "training": None,
        },
        "task": {"name": "smnist", "version": 1},
        "data": {
            "name": "mnist",
            "config": "mnist",
            "split": "test",
            "subset": None,
            "rows": 10000,
            "digest": "0" * 64,
            "source": "shipped",
        },
        "metrics": {"accuracy": 0.9789, "cross_entropy": 0.0712},
        "primary_metric": "accuracy",
        "intervals": {},
        "samples": 10000,
        "partial": False,
        "batch_size": 100,
        "dtype": "float32",
        "device": "cpu",
        "hardware": "a processor",
        "backend": "cpu",
        "threads": 2,
        "processes": 1,
        "seed": 0,
        "urzoo_version": "0.1.0",
        "git_commit": None,
        "torch_version": "2.13.0",
        "transformers_version": "5.23.0",
        "python_version": "3.11.7",
        "command": f"urzoo eval {checkpoint.name} --task smnist",
        "started_at": "2026-01-01T00:00:00Z",
        "wall_seconds": 9.0,
    }
    return parse_result(content | changes, "a test")
