"""Evaluations: right figures, whatever the batches; refused where the checkpoint is for another task."""

import json
import shutil
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, log_loss

from tests.evaluation import examples
from tests.evaluation.conftest import name_of
from tests.evaluation.examples import make_reviewer, reviews
from tests.zoo.conftest import make_checkpoint
from urzoo.data import load_split
from urzoo.errors import CheckpointError, UsageError
from urzoo.evaluation import evaluate
from urzoo.evaluation.classification import class_columns, taken_for
from urzoo.evaluation.runner import Settings
from urzoo.provenance import git_commit
from urzoo.zoo import load, load_image_processor

FEW = 60


def run(model: Path, task: str, **options: object):
    return evaluate(model, task, **{"limit": FEW, "progress": False, **options})


@pytest.fixture(scope="module")
def expected(permuted: Path) -> dict[str, float]:
    """The figures by scikit-learn from the model called image by image, through its processor."""
    split = load_split("mnist", "test")
    model, processor = load(permuted, backend="reference"), load_image_processor(permuted)
    with torch.inference_mode():
        scores = [model(**processor(images=image, return_tensors="pt")).logits[0] for image in split.images[:FEW]]
    probabilities = torch.stack(scores).double().softmax(dim=-1).numpy()
    labels = split.labels[:FEW]
    return {
        "accuracy": accuracy_score(labels, probabilities.argmax(axis=1)),
        "cross_entropy": log_loss(labels, probabilities, labels=range(10)),
    }


@pytest.mark.parametrize("batch_size", [1, 2, 7, 64, 1000])
def test_figures_are_scikit_learns_at_any_batch_size(permuted: Path, expected: dict[str, float], batch_size: int):
    result = run(permuted, "pmnist", batch_size=batch_size)
    assert result.metrics["accuracy"] == expected["accuracy"]
    assert result.metrics["cross_entropy"] == pytest.approx(expected["cross_entropy"], rel=1e-6)


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_other_types_agree_within_their_rounding(permuted: Path, expected: dict[str, float], dtype: str):
    result = run(permuted, "pmnist", dtype=dtype)
    assert result.dtype == dtype
    assert result.metrics["cross_entropy"] == pytest.approx(expected["cross_entropy"], rel=1e-2)


def test_products_are_exact_whatever_the_caller_allows(raster: Path):
    exact = run(raster, "smnist", backend="reference").metrics
    products, torch.backends.mkldnn.matmul.fp32_precision = torch.backends.mkldnn.matmul.fp32_precision, "bf16"
    try:
        assert run(raster, "smnist", backend="reference").metrics == exact
        assert torch.backends.mkldnn.matmul.fp32_precision == "bf16"
    finally:
        torch.backends.mkldnn.matmul.fp32_precision = products


def test_a_result_carries_its_provenance(raster: Path):
    result = run(raster, "smnist", backend="reference", seed=3)
    assert (result.samples, result.partial, result.data.rows) == (FEW, True, 10_000)
    assert (result.model.name, result.model.source, result.model.gate) == (name_of(raster), "folder", "UR")
    assert (result.backend, result.device, result.seed) == ("reference", "cpu", 3)
    assert result.torch_version == torch.__version__
    assert result.git_commit == git_commit()
    assert result.data.source == "shipped"
    assert result.primary_metric == "accuracy"
    interval = result.intervals["accuracy"]
    assert interval.low < result.metrics["accuracy"] < interval.high
    assert result.command == (
        f"urzoo eval path/to/raster-8 --task smnist --batch-size 250 --dtype float32 --seed 3 --limit {FEW}"
    )


def test_the_whole_test_split_is_evaluated_in_well_under_a_minute(raster: Path):
    began = time.perf_counter()
    result = evaluate(raster, "smnist", progress=False)
    assert time.perf_counter() - began < 60
    assert (result.samples, result.partial) == (10_000, False)


def test_an_unpermuted_model_cannot_score_on_pmnist(raster: Path):
    with pytest.raises(UsageError, match="pixel_order raster, the task requires permuted"):
        run(raster, "pmnist")


def test_a_permuted_model_cannot_score_on_smnist(permuted: Path):
    with pytest.raises(UsageError, match="pixel_order permuted, the task requires raster"):
        run(permuted, "smnist")


def test_another_permutation_is_refused(tmp_path: Path):
    with pytest.raises(UsageError, match="pixel_order permuted in another way"):
        run(make_checkpoint(tmp_path / "other", permutation_seed=1), "pmnist")


def test_a_model_of_colours_or_another_number_of_classes_is_refused(tmp_path: Path):
    other = make_checkpoint(tmp_path / "eleven", num_labels=11, id2label=None, label2id=None)
    with pytest.raises(UsageError, match="scores 11 classes, expected 10"):
        run(other, "smnist")


def test_a_models_own_order_of_classes_is_respected(tmp_path: Path):
    """The rows of the last layer and the names turned together must not change a figure."""
    plain = make_checkpoint(tmp_path / "plain")
    turned = tmp_path / "turned"
    shutil.copytree(plain, turned)
    from safetensors.torch import load_file, save_file

    weights = load_file(turned / "model.safetensors")
    for name, value in weights.items():
        if value.shape[0] == 10:
            weights[name] = value.roll(3, dims=0).contiguous()
    save_file(weights, turned / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((turned / "config.json").read_text())
    names = {str((digit + 3) % 10): str(digit) for digit in range(10)}
    config |= {"id2label": names, "label2id": {name: int(number) for number, name in names.items()}}
    (turned / "config.json").write_text(json.dumps(config))
    assert run(turned, "smnist").metrics["accuracy"] == run(plain, "smnist").metrics["accuracy"]


def test_partly_known_class_names_are_refused():
    class Config:
        num_labels = 2
        id2label = {0: "neg", 1: "positive"}  # noqa: RUF012

    with pytest.raises(UsageError, match="scores a class 'positive'"):
        class_columns(Config, ["neg", "pos"], Path("x"))
    Config.id2label = {0: "LABEL_0", 1: "LABEL_1"}
    assert class_columns(Config, ["neg", "pos"], Path("x")) == [0, 1]
    Config.id2label = {0: "Pos", 1: "NEG"}
    assert class_columns(Config, ["neg", "pos"], Path("x")) == [1, 0]
    assert class_columns(Config, ["NEG", "Pos"], Path("x")) == [1, 0]
    Config.id2label = {0: "pos", 1: "pos"}
    with pytest.raises(UsageError, match="scores a class 'pos' twice, expected neg, pos"):
        class_columns(Config, ["neg", "pos"], Path("x"))
    Config.id2label = {1: "neg", 2: "pos"}
    with pytest.raises(UsageError, match="the keys of id2label are not 0 to 1"):
        class_columns(Config, ["neg", "pos"], Path("x"))


@pytest.mark.parametrize(
    ("own", "classes", "told"),
    [
        (["plus", "minus"], ["neg", "pos"], "its classes taken in order: 'plus' for 'neg', 'minus' for 'pos'"),
        (["LABEL_0", "LABEL_1"], ["neg", "pos"], None),
        (["zero", "one"], ["0", "1"], None),
        (["Pos", "Neg"], ["neg", "pos"], None),
    ],
)
def test_classes_that_are_taken_in_order_are_told(own: list[str], classes: list[str], told: str | None):
    assert taken_for(SimpleNamespace(num_labels=2, id2label=dict(enumerate(own))), classes) == told


def test_a_result_tells_which_classes_were_taken_in_order(tmp_path: Path):
    folder = make_reviewer(tmp_path / "reviewer")
    config = json.loads((folder / "config.json").read_text())
    config |= {"id2label": {"0": "POSITIVE", "1": "NEGATIVE"}, "label2id": {"POSITIVE": 0, "NEGATIVE": 1}}
    (folder / "config.json").write_text(json.dumps(config))
    read = examples.run(folder, "imdb", reviews()).data.subset
    taken = "its classes taken in order: 'POSITIVE' for 'neg', 'NEGATIVE' for 'pos'"
    assert read == f"the first 50 tokens of each text; {taken}"


def test_nan_scores_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Finite weights can still overflow."""
    folder = make_checkpoint(tmp_path / "huge")
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    weights = {name: torch.full_like(value, 3e38) if "head" in name else value for name, value in weights.items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="gives NaN or infinite scores for row 0"):
        run(folder, "smnist")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("batch_size", 0),
        ("batch_size", 10**30),
        ("batch_size", "a"),
        ("limit", 0),
        ("limit", 2.5),
        ("seed", "a"),
        ("seed", -1),
        ("dtype", "fp32"),
        ("device", "warp"),
        ("device", "meta"),  # one of torch's, which computes nothing
        ("backend", "fast"),
    ],
)
def test_an_impossible_setting_is_refused_by_name(raster: Path, option: str, value: object):
    with pytest.raises(UsageError, match=option):
        run(raster, "smnist", **{option: value})


def test_settings_are_checked_before_anything_is_loaded():
    with pytest.raises(UsageError, match="Did you mean 'float32'"):
        Settings(dtype="float23")


def test_a_transformers_image_classifier_may_be_evaluated_on_whole_images(tmp_path: Path):
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    config = ViTConfig(image_size=28, patch_size=7, num_labels=10, **sizes)
    ViTForImageClassification(config).save_pretrained(tmp_path / "vit")
    ViTImageProcessor(size={"height": 28, "width": 28}).save_pretrained(tmp_path / "vit")
    result = run(tmp_path / "vit", "smnist")
    assert (result.model.architecture, result.model.cell, result.backend) == (
        "ViTForImageClassification",
        None,
        "torch",
    )
    with pytest.raises(UsageError, match="reads whole images"):
        run(tmp_path / "vit", "pmnist")


def test_a_model_of_another_kind_is_refused(tmp_path: Path):
    from urzoo.models import URLSTMConfig, URLSTMModel

    URLSTMModel(URLSTMConfig(hidden_size=4)).save_pretrained(tmp_path / "bare")
    with pytest.raises(UsageError, match="is a URLSTMModel; task smnist needs a model ForImageClassification"):
        run(tmp_path / "bare", "smnist")


def test_evaluating_twice_gives_the_same_bits(raster: Path):
    first, second = run(raster, "smnist"), run(raster, "smnist")
    assert first.metrics == second.metrics
    assert np.isfinite(list(first.metrics.values())).all()
