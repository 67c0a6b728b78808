"""Tiny recipes and data of every kind, for tests of training.

Images are striped, and their class is the brightest row; series are flat, and their class is the height; texts are
of nonsense words, and their class is that of the words that stand in them.
"""

import hashlib
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tests.training.lm_tiny import articles, put_in_place, tiny_lm_recipe
from urzoo.data import Split
from urzoo.data.schema import load_data_set
from urzoo.training import TrainingStoppedError, train
from urzoo.training.report import StopOnSignal

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
    "augmentation": {
        "shift_pixels": 1,
        "flip_horizontal": True,
        "rotate_degrees": 5.0,
        "elastic": {"alpha_pixels": 4.0, "sigma_pixels": 4.0},
        "interpolation_probability": 0.5,
        "brightness_change": 0.1,
        "contrast_change": 0.1,
        "cutmix": {"probability": 0.5, "alpha": 1.0},
    },
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


_SHARED = {key: TINY[key] for key in ("licence", "optimiser", "schedule", "cadence", "selection")}
_LAYERS = {key: value for key, value in TINY["model"].items() if key != "input_size"} | {"bidirectional": True}
_RUN = TINY["run"] | {"label_smoothing": 0.1}

TINY_SERIES = _SHARED | {
    "name": "tiny",
    "task": "character_trajectories",
    "architecture": "URLSTMForSequenceClassification",
    "model": _LAYERS | {"input_size": 3, "pooling": ["mean", "max"]},
    "data": {"name": "character-trajectories", "split": "train", "validation_rows": 10, "validation_seed": 0},
    "batches": {"pool_batches": 2},
    "augmentation": {
        "time_scale_min": 0.5,
        "time_scale_max": 2.0,
        "amplitude_deviation": 0.01,
        "noise_deviation": 0.01,
    },
    "further_time_scales": [2.0, 0.5],
    "run": _RUN,
}

TINY_TEXTS = _SHARED | {
    "name": "tiny",
    "task": "imdb",
    "architecture": "URLSTMForSequenceClassification",
    "model": _LAYERS
    | {"embedding_size": 6, "embedding_dropout": 0.1, "token_dropout": 0.1, "pooling": ["last", "mean", "max"]},
    "tokenizer": {"kind": "checkpoint", "checkpoint": "given by tiny_texts_recipe"},
    "data": {"name": "imdb", "split": "train", "validation_rows": 10, "validation_seed": 0},
    "batches": {"pool_batches": 2, "max_tokens": 12},
    "initialise_from": "base",
    "run": _RUN | {"adversarial_radius": 0.01},
}


def tiny_series_recipe(folder: Path, **changes: Any) -> Path:
    """A recipe file of series; for changes see `tiny_recipe`."""
    return _written(folder, TINY_SERIES, changes)


def tiny_texts_recipe(folder: Path, **changes: Any) -> Path:
    """A recipe file of texts that begins with the language model `base` of the folder of runs, made if it is absent."""
    base = tiny_language_model(folder / "base" / "checkpoint")
    return _written(folder, TINY_TEXTS, {"tokenizer__checkpoint": str(base), **changes})


def tiny_language_model(folder: Path, **fields: Any) -> Path:
    """A language model's checkpoint, drawn by a seed, with its tokenizer."""
    import torch

    from urzoo.models import URLSTMConfig, URLSTMForCausalLM
    from urzoo.training.text.recipe import ByteLevelTokenizerRecipe, TextSource
    from urzoo.training.text.tokenizer import train_tokenizer

    if folder.exists():
        return folder
    source = TextSource(name="imdb", split="train", documents="rows", surface="as-is", rare_words_below=None)
    recipe = ByteLevelTokenizerRecipe(
        kind="byte-level-bpe", vocab_size=270, minimum_frequency=1, pattern="gpt2", texts=[source]
    )
    tokenizer = train_tokenizer(recipe, tiny_texts().texts)
    torch.manual_seed(1)
    config = URLSTMConfig(
        **{"vocab_size": len(tokenizer), "hidden_size": 4, "embedding_size": 6, "pad_token_id": 0, **fields}
    )
    URLSTMForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def tiny_recipe(folder: Path, **changes: Any) -> Path:
    """A recipe file of images; changes are given as `section__key=value` or `key=value`."""
    return _written(folder, TINY, changes)


def _written(folder: Path, recipe: dict[str, Any], changes: dict[str, Any]) -> Path:
    content = {key: dict(value) if isinstance(value, dict) else value for key, value in recipe.items()}
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


def tiny_series(rows: int = 45) -> Split:
    """Series of twenty classes and of different lengths."""
    generator = np.random.default_rng(0)
    labels = np.arange(rows, dtype=np.int64) % 20
    heights = (labels - 10) / 5
    series = [
        np.full((length, 3), height, np.float32)
        for length, height in zip(generator.integers(8, 20, size=rows).tolist(), heights.tolist(), strict=True)
    ]
    digest = hashlib.sha256(np.concatenate(series).tobytes()).hexdigest()
    columns = {"trajectory": series, "label": labels}
    return Split(load_data_set("character-trajectories"), "train", digest, "data root", columns)


def tiny_texts(rows: int = 45) -> Split:
    """Texts of two classes and of different lengths, one of them empty."""
    generator = np.random.default_rng(0)
    labels = np.arange(rows, dtype=np.int64) % 2
    words = [["dull", "plot", "film"], ["fine", "plot", "film"]]
    texts = [" ".join(generator.choice(words[label], generator.integers(2, 20))) for label in labels.tolist()]
    texts[7] = ""
    digest = hashlib.sha256("".join(texts).encode()).hexdigest()
    return Split(load_data_set("imdb"), "train", digest, "data root", {"text": texts, "label": labels})


def tiny_problem_recipe(folder: Path, **changes: Any) -> Path:
    """A recipe file of a synthetic problem: a shipped one, cut down to seconds."""
    shipped = Path(__file__).parents[2] / "configs" / "copy" / "urlstm-128-ur.yaml"
    content = yaml.safe_load(shipped.read_text())
    content["model"]["hidden_size"] = 12
    content["stream"]["validation_sequences"] = 20
    content["run"] |= {"steps": 8, "batch_size": 4}
    content["cadence"] = {"log_every_steps": 3, "save_every_steps": 2, "validate_every_steps": 3}
    return _written(folder, content | {"name": "tiny"}, changes)


def tiny_stream_recipe(folder: Path, **changes: Any) -> Path:
    """A recipe file of a language model; see `tests.training.lm_tiny`."""
    return tiny_lm_recipe(folder, **{"name": "tiny", **changes})


# Of each kind a recipe, and the data to give to `train`; None where the kind takes none.
KINDS = {
    "images": (tiny_recipe, tiny_data),
    "series": (tiny_series_recipe, tiny_series),
    "texts": (tiny_texts_recipe, tiny_texts),
    "language_model": (tiny_stream_recipe, lambda: None),
    "synthetic": (tiny_problem_recipe, lambda: None),
}
# Those that read the rows of a data set in epochs; their tiny recipes have a ReLU layer in the head.
ROWS = ("images", "series", "texts")


def train_tiny(kind: str, recipe: Path, runs: Path, **options: Any) -> Path:
    """Train a tiny recipe of a kind; where it reads texts by itself, these are small ones."""
    with pytest.MonkeyPatch.context() as patch:
        put_in_place(patch, articles(30))
        return train(recipe, runs=runs, **{"progress": False, "data": KINDS[kind][1](), **options})


def stop_after_a_step(kind: str, recipe: Path, runs: Path, *, number: int = signal.SIGINT) -> None:
    """Begin a run that a signal ends after its first step."""
    begin = StopOnSignal.on_train_begin

    def ask(self: StopOnSignal, *arguments: Any, **options: Any) -> Any:
        signal.raise_signal(number)
        return begin(self, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StopOnSignal, "on_train_begin", ask)
        with pytest.raises(TrainingStoppedError, match="stopped at step 1 of") as stopped:
            train_tiny(kind, recipe, runs)
    assert stopped.value.exit_code == 128 + number


def classification_scores(logits: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """The accuracy and the mean cross entropy, in nats, in float64."""
    import torch

    log_probabilities = torch.from_numpy(logits).double().log_softmax(-1).numpy()
    return float((logits.argmax(1) == labels).mean()), float(-log_probabilities[np.arange(len(labels)), labels].mean())
