"""A tiny language model's recipe, and tiny texts in place of the data sets that it names."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from urzoo.data import Split
from urzoo.data.schema import load_data_set
from urzoo.training.text import documents

SOURCE = {"name": "wikitext-2", "split": "train", "documents": "pages", "surface": "as-is", "rare_words_below": None}
TINY = {
    "name": "tiny-lm",
    "task": "wikitext103",
    "licence": "cc-by-sa-3.0",
    "architecture": "URLSTMForCausalLM",
    "model": {
        "cell": "lstm",
        "gate": "UR",
        "tie_input_gate": True,
        "train_gate_bias": True,
        "refine_offset": True,
        "max_time": None,
        "embedding_size": 6,
        "hidden_size": 8,
        "num_layers": 2,
        "residual": True,
        "layer_norm": True,
        "tie_word_embeddings": True,
        "head_dtype": "float32",
        "adaptive_cutoffs": None,
        "initializer_range": 0.05,
        "token_dropout": 0.1,
        "embedding_dropout": 0.1,
        "layer_dropout": 0.1,
        "weight_dropout": 0.1,
        "head_dropout": 0.1,
    },
    "tokenizer": {
        "kind": "byte-level-bpe",
        "vocab_size": 300,
        "minimum_frequency": 2,
        "pattern": "wikitext",
        "texts": [SOURCE],
    },
    "data": {
        "train": [SOURCE | {"times": 2}],
        "validation": None,
        "validation_documents": 3,
        "validation_seed": 0,
    },
    "optimiser": {
        "learning_rate": 0.01,
        "weight_decay": 0.1,
        "beta1": 0.9,
        "beta2": 0.99,
        "epsilon": 1e-8,
        "gradient_norm_clip": 1.0,
    },
    "schedule": {"kind": "warmup-cosine", "warmup_fraction": 0.2, "initial_fraction": 0.1, "final_fraction": 0.0},
    "run": {
        "batch_size": 4,
        "segment_tokens": 12,
        "steps": 9,
        "precision": "fp32",
        "seed": 3,
        "weight_average_decay": 0.9,
    },
    "cadence": {"log_every_steps": 4, "save_every_steps": 2, "validate_every_steps": 3},
    "selection": {"checkpoint": "best"},
    "initialise_from": None,
}
WORDS = ["the", "cat", "dog", "river", "of", "in", "was", "seen", "1984", "<unk>", "'s", ","]


def articles(count: int, seed: int = 0) -> list[str]:
    """Rows as WikiText has them: titles between blank lines, and paragraphs of words from a short list."""
    draw = np.random.RandomState(seed)
    rows = []
    for number in range(count):
        rows += ["", f" = Article {number} = \n", ""]
        rows += [f" {' '.join(draw.choice(WORDS, 12))} . \n" for _ in range(draw.randint(1, 4))]
    return rows


def text_split(name: str, split: str, rows: list[str]) -> Split:
    """A split with these rows in place of its own."""
    return Split(
        load_data_set(name), split, load_data_set(name).splits[split].digest or "0" * 64, "data root", {"text": rows}
    )


def put_in_place(monkeypatch: pytest.MonkeyPatch, rows: list[str]) -> list[str]:
    """Let every split have these rows; returns the names of the data sets as they are read."""
    reads: list[str] = []

    def load_split(name: str, split: str, *, data_root: object = None) -> Split:
        reads.append(name)
        return text_split(name, split, rows)

    monkeypatch.setattr(documents, "load_split", load_split)
    return reads


def tiny_lm_recipe(folder: Path, **changes: Any) -> Path:
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
