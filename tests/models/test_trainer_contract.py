"""transformers' own Trainer over the models, as anybody would write it."""

import math

import numpy as np
import peft
import pytest
import torch
from torch.utils.data import Dataset
from transformers import EarlyStoppingCallback, Trainer, TrainingArguments
from transformers.utils.generic import find_labels

from urzoo import URLSTMConfig, URLSTMForCausalLM, URLSTMForImageClassification, URLSTMForSequenceClassification

VOCABULARY = 30


class Texts(Dataset):
    """Texts that count upwards, so that something can be learnt; padded on the right."""

    def __init__(self, rows: int = 16, *, kind: str = "language model") -> None:
        generator = torch.Generator().manual_seed(3)
        self.starts = torch.randint(1, VOCABULARY, (rows,), generator=generator)
        self.lengths = torch.randint(4, 9, (rows,), generator=generator)
        self.kind = kind

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, row: int) -> dict[str, torch.Tensor]:
        ids = (self.starts[row] + torch.arange(8)) % (VOCABULARY - 1) + 1
        mask = (torch.arange(8) < self.lengths[row]).long()
        start = self.starts[row]
        labels = {
            "language model": ids.masked_fill(mask == 0, -100),
            "classifier": start % 2,
            "regression": start / VOCABULARY,
            "several labels": torch.stack([start % 2, start % 3 == 0]).float(),
        }[self.kind]
        return {"input_ids": ids * mask, "attention_mask": mask, "labels": labels}


def language_model(**fields) -> URLSTMForCausalLM:
    torch.manual_seed(0)
    sizes = {"vocab_size": VOCABULARY, "hidden_size": 16, "pad_token_id": 0, "initializer_range": 1.0}
    return URLSTMForCausalLM(URLSTMConfig(**{**sizes, **fields}))


def trainer(model, folder, *, train=None, evaluate=None, callbacks=None, metrics=None, **options) -> Trainer:
    options = {
        "output_dir": str(folder),
        "per_device_train_batch_size": 4,
        "per_device_eval_batch_size": 8,
        "learning_rate": 0.01,
        "num_train_epochs": 2,
        "report_to": [],
        "disable_tqdm": True,
        "use_cpu": True,
        "logging_steps": 1,
        "save_strategy": "no",
        **options,
    }
    return Trainer(
        model,
        TrainingArguments(**options),
        train_dataset=train or Texts(),
        eval_dataset=evaluate or Texts(8),
        callbacks=callbacks,
        compute_metrics=metrics,
    )


def losses(one: Trainer) -> list[float]:
    return [entry["loss"] for entry in one.state.log_history if "loss" in entry]


def test_labels_are_found_by_their_one_name():
    for model in (URLSTMForCausalLM, URLSTMForSequenceClassification, URLSTMForImageClassification):
        assert find_labels(model) == ["labels"]


@pytest.mark.parametrize("fields", [{}, {"adaptive_cutoffs": [10, 20]}])
def test_evaluation_of_a_language_model_gives_loss_and_metrics(tmp_path, fields):
    model = language_model(**fields)

    def accuracy(prediction):
        shifted = prediction.label_ids[:, 1:]
        right = prediction.predictions.argmax(-1)[:, :-1] == shifted
        return {"accuracy": right[shifted != -100].mean()}

    found = trainer(model, tmp_path, metrics=accuracy).evaluate()
    texts = Texts(8)
    batch = {key: torch.stack([texts[row][key] for row in range(8)]) for key in texts[0]}
    with torch.no_grad():
        expected = model.eval()(**batch)
    assert found["eval_loss"] == pytest.approx(float(expected.loss), rel=1e-4)
    guesses, targets = expected.logits.argmax(-1)[:, :-1], batch["labels"][:, 1:]
    assert found["eval_accuracy"] == pytest.approx(float((guesses == targets)[targets != -100].float().mean()))


def test_the_best_language_model_is_loaded_at_the_end(tmp_path):
    one = trainer(
        language_model(),
        tmp_path,
        eval_strategy="epoch",
        save_strategy="epoch",
        load_best_model_at_end=True,
        num_train_epochs=3,
    )
    one.train()
    scores = [entry["eval_loss"] for entry in one.state.log_history if "eval_loss" in entry]
    assert len(scores) == 3
    assert one.state.best_metric == min(scores)
    assert one.evaluate()["eval_loss"] == pytest.approx(min(scores), rel=1e-5)


@pytest.mark.parametrize("training", [False, True])
def test_label_smoothing_shifts_the_labels_as_the_loss_does(tmp_path, training):
    texts = Texts(4)
    batch = {key: torch.stack([texts[row][key] for row in range(4)]) for key in texts[0]}
    found = []
    for factor in (0.0, 1e-7):
        one = trainer(language_model(head_dropout=0.0).train(training), tmp_path, label_smoothing_factor=factor)
        found.append(float(one.compute_loss(one.model, dict(batch)).detach()))
    assert found[0] == pytest.approx(found[1], rel=1e-4)


def test_a_smoothed_language_model_learns_what_follows_and_not_to_copy(tmp_path):
    one = trainer(language_model(), tmp_path, label_smoothing_factor=0.1, num_train_epochs=25, learning_rate=0.02)
    one.train()
    ids = Texts()[0]["input_ids"][None, :4]
    with torch.no_grad():
        guesses = one.model.eval()(ids).logits.argmax(-1)
    assert (guesses[0, :3] == ids[0, 1:]).all()


@pytest.mark.parametrize("kind", ["language model", "classifier", "regression", "several labels"])
def test_accumulated_gradients_are_those_of_the_whole_batch(tmp_path, kind):
    models = []
    for size, steps in ((8, 1), (2, 4)):
        if kind == "language model":
            model = language_model(head_dropout=0.0)
        else:
            torch.manual_seed(0)
            labels = 1 if kind == "regression" else 2
            model = URLSTMForSequenceClassification(
                URLSTMConfig(vocab_size=VOCABULARY, hidden_size=16, head_dropout=0.0, pad_token_id=0, num_labels=labels)
            )
        one = trainer(
            model,
            tmp_path,
            train=Texts(kind=kind),
            per_device_train_batch_size=size,
            gradient_accumulation_steps=steps,
            num_train_epochs=1,
            optim="sgd",
            learning_rate=0.1,
        )
        one.train()
        models.append(one)
    for value, other in zip(models[0].model.parameters(), models[1].model.parameters(), strict=True):
        torch.testing.assert_close(value, other, atol=1e-5, rtol=1e-4)
    assert losses(models[0]) == pytest.approx(losses(models[1]), rel=1e-3)


def test_a_subclass_has_the_loss_of_its_head(tmp_path):
    class Mine(URLSTMForSequenceClassification):
        pass

    class Writer(URLSTMForCausalLM):
        pass

    config = URLSTMConfig(vocab_size=VOCABULARY, hidden_size=16)
    ids, labels = torch.randint(1, VOCABULARY, (2, 5)), torch.tensor([0, 1])
    output = Mine(config).eval()(ids, labels=labels)
    torch.testing.assert_close(output.loss, torch.nn.functional.cross_entropy(output.logits, labels))
    # The first token of each row is nobody's next one.
    batch = {"input_ids": ids, "labels": ids}
    assert trainer(Writer(config), tmp_path)._get_num_items_in_batch([batch], torch.device("cpu")) == 8


@pytest.mark.parametrize("bf16", [False, True])
def test_a_resumed_training_ends_as_one_that_was_not_interrupted(tmp_path, bf16):
    options = {"save_strategy": "steps", "save_steps": 3, "bf16": bf16, "lr_scheduler_type": "constant"}
    whole = trainer(language_model(), tmp_path / "whole", **options)
    whole.train()
    trainer(language_model(), tmp_path / "broken", max_steps=3, **options).train()
    resumed = trainer(language_model(), tmp_path / "broken", **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "broken" / "checkpoint-3"))
    assert resumed.state.global_step == whole.state.global_step == 8
    for value, other in zip(resumed.model.parameters(), whole.model.parameters(), strict=True):
        torch.testing.assert_close(value, other)


def test_bfloat16_training_learns(tmp_path):
    one = trainer(language_model(), tmp_path, bf16=True, num_train_epochs=20)
    one.train()
    assert np.mean(losses(one)[-4:]) < 0.5 * losses(one)[0]
    assert all(value.dtype == torch.float32 for value in one.model.parameters())


def test_training_stops_early(tmp_path):
    one = trainer(
        language_model(),
        tmp_path,
        callbacks=[EarlyStoppingCallback(early_stopping_patience=1)],
        eval_strategy="epoch",
        save_strategy="epoch",
        load_best_model_at_end=True,
        metric_for_best_model="eval_loss",
        learning_rate=0.0,
        num_train_epochs=9,
    )
    one.train()
    assert one.state.epoch == 2


def test_a_classifier_is_evaluated_with_metrics(tmp_path):
    torch.manual_seed(0)
    model = URLSTMForSequenceClassification(URLSTMConfig(vocab_size=VOCABULARY, hidden_size=16, pad_token_id=0))

    def accuracy(prediction):
        return {"accuracy": (prediction.predictions.argmax(-1) == prediction.label_ids).mean()}

    one = trainer(
        model,
        tmp_path,
        train=Texts(kind="classifier"),
        evaluate=Texts(kind="classifier"),
        metrics=accuracy,
        num_train_epochs=20,
    )
    one.train()
    found = one.evaluate()
    assert math.isfinite(found["eval_loss"])
    assert found["eval_accuracy"] > 0.9


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_an_adapter_is_trained_saved_loaded_and_merged(tmp_path):
    base = language_model(tie_word_embeddings=False)
    frozen = {name: value.clone() for name, value in base.state_dict().items()}
    adapted = peft.get_peft_model(base, peft.LoraConfig(task_type="CAUSAL_LM", target_modules=["lm_head"], r=4))
    one = trainer(adapted, tmp_path, num_train_epochs=10, label_smoothing_factor=0.05, learning_rate=0.05)
    one.train()
    assert np.mean(losses(one)[-4:]) < losses(one)[0]
    adapted.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    ids = Texts()[0]["input_ids"][None]
    with torch.no_grad():
        expected = adapted.eval()(input_ids=ids).logits
        again = language_model(tie_word_embeddings=False)
        again.load_state_dict(frozen)
        assert not torch.allclose(again.eval()(ids).logits, expected, atol=1e-2)
        loaded = peft.PeftModel.from_pretrained(again, tmp_path / "adapter").eval()
        torch.testing.assert_close(loaded(input_ids=ids).logits, expected)
        torch.testing.assert_close(loaded.merge_and_unload()(ids).logits, expected, atol=1e-4, rtol=1e-4)
    recurrence = "model.layers.0.recurrence.weight_hh_l0"
    assert torch.equal(adapted.get_base_model().state_dict()[recurrence], frozen[recurrence])


def test_predictions_of_a_language_model_are_its_scores_without_the_state(tmp_path):
    model = URLSTMForCausalLM(URLSTMConfig(vocab_size=20, hidden_size=8))
    rows = [{"input_ids": torch.randint(20, (6,)), "labels": torch.randint(20, (6,))} for _ in range(5)]
    trainer = Trainer(
        model, TrainingArguments(str(tmp_path), per_device_eval_batch_size=2, report_to=[], dataloader_pin_memory=False)
    )
    assert trainer.predict(rows).predictions.shape == (5, 6, 20)
