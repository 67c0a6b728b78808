"""The scripts of docs/fine_tuning as a user runs them, on a few rows; and what else plain Trainer offers."""

import csv
import json
import random
import re
import runpy
import sys
from pathlib import Path

import datasets
import numpy as np
import PIL.Image
import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    EarlyStoppingCallback,
    Trainer,
    TrainingArguments,
    pipeline,
    set_seed,
)

import urzoo
from urzoo import URLSTMConfig
from urzoo.models import URLSTMForCausalLM, URLSTMForSequenceClassification

SCRIPTS = Path(__file__).parents[2] / "docs" / "fine_tuning"
WORDS = {
    "sport": ["match", "goal", "team", "league", "score"],
    "food": ["bread", "cheese", "soup", "salt", "oven"],
    "sky": ["star", "moon", "cloud", "planet", "orbit"],
}
# Of the libraries that the scripts use, none of them ours.
pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*pin_memory.*:UserWarning"),
]


def run(name: str, monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    runpy.run_path(str(SCRIPTS / name), run_name="__main__")


@pytest.fixture
def texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    chosen = random.Random(0)
    with (tmp_path / "texts.csv").open("w") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for row in range(60):
            label = list(WORDS)[row % 3]
            writer.writerow([" ".join(chosen.choices(WORDS[label], k=chosen.randint(3, 9))), label])
    return tmp_path / "texts.csv"


def test_texts_of_ones_own_get_labels_of_ones_own(texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run("texts.py", monkeypatch, texts, tmp_path / "out")
    classify = pipeline("text-classification", model=str(tmp_path / "out"))
    answers = [classify(" ".join(words))[0]["label"] for words in WORDS.values()]
    assert answers == list(WORDS)
    # A checkpoint as any other.
    assert urzoo.load(tmp_path / "out").config.label2id == {"food": 0, "sky": 1, "sport": 2}


@pytest.mark.parametrize("script", ["texts.py", "adapter.py"])
@pytest.mark.parametrize("rows", ["good,a\nbad,a\n", "good,a\n,b\n", "good,a\nbad,\nwell,b\n", "1,a\n2,b\n"])
def test_texts_that_nothing_can_be_learnt_from_are_refused(
    script: str, rows: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "texts.csv").write_text(f"text,label\n{rows}")
    with pytest.raises(
        SystemExit, match=r"texts.csv row \d is .*, expected a text and a label, and two labels or more"
    ):
        run(script, monkeypatch, tmp_path / "texts.csv", tmp_path / "out")


def test_an_adapter_learns_and_the_checkpoint_stays(texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from peft import PeftModel
    from transformers import AutoTokenizer

    folder = tmp_path / "out"
    run("adapter.py", monkeypatch, texts, folder)
    sentences = [" ".join(words) for words in WORDS.values()]
    answers = pipeline("text-classification", model=str(folder), top_k=None)(sentences)
    assert [scores[0]["label"] for scores in answers] == list(WORDS)
    merged = urzoo.load(folder)
    assert merged.config.label2id == {"food": 0, "sky": 1, "sport": 2}

    base = AutoModelForSequenceClassification.from_pretrained(
        urzoo.path("urlstm-128-imdb"), config=merged.config, ignore_mismatched_sizes=True
    )
    adapted = PeftModel.from_pretrained(base, str(folder / "adapter")).eval()
    inputs = AutoTokenizer.from_pretrained(folder)(sentences, return_tensors="pt", padding=True)
    torch.testing.assert_close(adapted(**inputs).logits, merged(**inputs).logits, atol=1e-4, rtol=1e-4)
    size = (folder / "adapter" / "adapter_model.safetensors").stat().st_size
    assert size < 0.2 * sum(4 * parameter.numel() for parameter in merged.parameters())


TARGETS = re.findall(r"`(target_.*)` \|", (SCRIPTS.parent / "pages" / "train" / "fine_tuning.md").read_text("utf-8"))


@pytest.mark.parametrize("targets", TARGETS)
def test_the_targets_that_the_page_names_are_adapted_in_every_layer(targets: str):
    from peft import LoraConfig, get_peft_model

    config = URLSTMConfig(vocab_size=50, hidden_size=8, num_layers=2, bidirectional=True)
    model = URLSTMForSequenceClassification(config)
    adapted = get_peft_model(model, LoraConfig(r=2, init_lora_weights=False, **eval(f"dict({targets})"))).eval()
    ids = torch.randint(50, (2, 6))
    output = adapted(input_ids=ids, labels=torch.tensor([0, 1]))
    output.loss.backward()
    learning = {name: value.grad for name, value in adapted.named_parameters() if value.requires_grad}
    assert len(learning) == (8 if "recurrence" in targets else 4)
    assert all(gradient is not None and gradient.abs().max() > 0 for gradient in learning.values())
    merged = adapted.merge_and_unload()
    torch.testing.assert_close(merged(input_ids=ids).logits, output.logits, atol=1e-5, rtol=1e-4)


def test_a_text_too_short_to_be_held_out_of_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "text.txt").write_text("The cat sat on the mat.")
    with pytest.raises(SystemExit, match=r"text.txt has \d+ tokens, expected 512 or more"):
        run("language_model.py", monkeypatch, tmp_path / "text.txt", tmp_path / "out")


def test_a_language_model_learns_a_text_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    text = tmp_path / "text.txt"
    text.write_text("The cat sat on the mat and looked at the moon. " * 700)
    run("language_model.py", monkeypatch, text, tmp_path / "out")
    write = pipeline("text-generation", model=str(tmp_path / "out"))
    ids = write.tokenizer(text.read_text(), return_tensors="pt")["input_ids"][:, :256]
    with torch.no_grad():
        before, after = (model(ids, labels=ids).loss for model in (urzoo.load("urlstm-1024-long-text"), write.model))
    assert after < 0.8 * before
    assert write("The cat", max_new_tokens=4, do_sample=False)[0]["generated_text"].startswith("The cat")
    assert write.model.config.use_cache


def test_a_folder_of_images_becomes_a_classifier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")

    def photograph(seed: int, brightness: int) -> PIL.Image.Image:
        pixels = np.random.RandomState(seed).randint(0, 100, (30 + seed, 40, 3)) + brightness
        return PIL.Image.fromarray(pixels.astype(np.uint8))

    for name, brightness in (("dark", 0), ("light", 150)):
        (tmp_path / "images" / name).mkdir(parents=True)
        for seed in range(20):
            photograph(seed, brightness).save(tmp_path / "images" / name / f"{seed}.png")
    run("images.py", monkeypatch, tmp_path / "images", tmp_path / "out")
    classify = pipeline("image-classification", model=str(tmp_path / "out"))
    answers = [classify(photograph(99, brightness))[0]["label"] for brightness in (0, 150)]
    assert answers == ["dark", "light"]


def test_series_of_different_lengths_become_a_classifier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    draws = np.random.RandomState(0)

    def one(label: str) -> dict[str, object]:
        steps = draws.randn(draws.randint(3, 9), 2) + (1.0 if label == "up" else -1.0)
        return {"series": steps.tolist(), "label": label}

    lines = [json.dumps(one(("up", "down")[number % 2])) for number in range(80)]
    (tmp_path / "series.jsonl").write_text("\n".join(lines))
    run("series.py", monkeypatch, tmp_path / "series.jsonl", tmp_path / "out")
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").eval()
    found = [
        model.config.id2label[int(model(inputs_embeds=torch.tensor([one(label)["series"]])).logits.argmax())]
        for label in ("up", "down") * 5
    ]
    assert found == ["up", "down"] * 5


def test_the_evaluator_agrees_with_the_pipeline(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    run("evaluator.py", monkeypatch)
    rows = urzoo.data.load_split("mnist", "test").select(range(100)).to_dataset()
    classify = pipeline("image-classification", model=str(urzoo.path("urlstm-128-smnist")), top_k=1)
    right = [
        answer[0]["label"] == str(label)
        for answer, label in zip(classify(list(rows["image"])), rows["label"], strict=True)
    ]
    assert float(capsys.readouterr().out.splitlines()[-1]) == pytest.approx(np.mean(right))


@pytest.mark.parametrize("kind", ["path", "model"])
def test_the_evaluator_takes_classifiers_of_texts(kind: str):
    from evaluate import evaluator
    from transformers import AutoTokenizer

    from urzoo.evaluation.metrics import Accuracy

    checkpoint = str(urzoo.path("urlstm-128-imdb"))
    rows = datasets.Dataset.from_dict({"text": ["A lovely, warm film.", "Boring and awful."], "label": [1, 1]})
    model = checkpoint if kind == "path" else urzoo.load("urlstm-128-imdb")
    measured = evaluator("text-classification").compute(
        model, rows, metric=Accuracy(keep_in_memory=True), label_mapping={"neg": 0, "pos": 1},
        tokenizer=AutoTokenizer.from_pretrained(checkpoint),
    )  # fmt: skip
    assert measured["accuracy"] == 0.5


def series(rows: int) -> datasets.Dataset:
    values = np.random.RandomState(0).randn(rows, 5, 2).astype(np.float32)
    labels = (values.sum((1, 2)) > 0).astype(np.int64)
    return datasets.Dataset.from_dict({"inputs_embeds": values.tolist(), "labels": labels.tolist()})


def trainer(
    folder: Path, rows: datasets.Dataset, callbacks: list[object] | None = None, **arguments: object
) -> Trainer:
    set_seed(0)
    model = URLSTMForSequenceClassification(URLSTMConfig(input_size=2, hidden_size=8, head_dropout=0.0))
    settings = {"max_steps": 6, "learning_rate": 0.01, "report_to": "none", "use_cpu": True, **arguments}
    return Trainer(
        model, TrainingArguments(str(folder), **settings), train_dataset=rows, eval_dataset=rows, callbacks=callbacks
    )  # fmt: skip


def weights(model: torch.nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def test_accumulated_gradients_are_those_of_the_larger_batch(tmp_path: Path):
    large = trainer(tmp_path, series(48), per_device_train_batch_size=8)
    large.train()
    small = trainer(tmp_path, series(48), per_device_train_batch_size=2, gradient_accumulation_steps=4)
    small.train()
    torch.testing.assert_close(weights(small.model), weights(large.model), atol=1e-5, rtol=1e-4)


def test_a_run_that_is_resumed_ends_as_one_that_was_not_interrupted(tmp_path: Path):
    whole = trainer(tmp_path / "whole", series(48))
    whole.train()
    trainer(tmp_path / "parts", series(48), save_steps=3).train()
    resumed = trainer(tmp_path / "parts", series(48))
    resumed.train(resume_from_checkpoint=str(tmp_path / "parts" / "checkpoint-3"))
    assert torch.equal(weights(resumed.model), weights(whole.model))


def test_training_in_bfloat16_learns(tmp_path: Path):
    learner = trainer(tmp_path, series(64), max_steps=60, learning_rate=0.02, bf16=True)
    before = learner.evaluate()["eval_loss"]
    learner.train()
    assert learner.evaluate()["eval_loss"] < 0.5 * before


def test_training_stops_when_the_loss_no_longer_falls(tmp_path: Path):
    learner = trainer(
        tmp_path, series(16), [EarlyStoppingCallback(early_stopping_patience=2)], max_steps=50, learning_rate=0.0,
        eval_strategy="steps", save_strategy="steps", eval_steps=1, save_steps=1, save_total_limit=1,
        load_best_model_at_end=True, metric_for_best_model="eval_loss",
    )  # fmt: skip
    learner.train()
    assert learner.state.global_step == 3


def test_a_language_model_has_a_loss_in_evaluation_and_stops_early(tmp_path: Path):
    ids = torch.randint(20, (8, 6)).tolist()
    rows = datasets.Dataset.from_dict({"input_ids": ids, "labels": ids})
    model = URLSTMForCausalLM(URLSTMConfig(vocab_size=20, hidden_size=8))
    arguments = TrainingArguments(
        str(tmp_path), max_steps=50, learning_rate=0.0, report_to="none", use_cpu=True, eval_strategy="steps",
        eval_steps=1, save_strategy="steps", save_steps=1, save_total_limit=1, load_best_model_at_end=True,
    )  # fmt: skip
    learner = Trainer(model, arguments, train_dataset=rows, eval_dataset=rows, callbacks=[EarlyStoppingCallback(2)])
    learner.train()
    assert learner.state.global_step == 3
    assert learner.evaluate()["eval_loss"] == pytest.approx(np.log(20), abs=0.2)
