"""Train a classifier on your own series of numbers: python series.py SERIES.jsonl DIR

Each line of the file is an object: `series`, any number of steps with as many numbers each, and `label`, a word or
number of your own.
"""

import sys

import torch
from datasets import load_dataset
from torch.nn.utils.rnn import pad_sequence
from transformers import Trainer, TrainingArguments

from urzoo.models import URLSTMConfig, URLSTMForSequenceClassification

file, folder = sys.argv[1:]
rows = load_dataset("json", data_files=file, split="train").class_encode_column("label")
names = dict(enumerate(rows.features["label"].names))
rows = rows.train_test_split(test_size=0.2, seed=0)


def batch(rows: list) -> dict[str, torch.Tensor]:
    """Series of different lengths side by side; the mask is 1 where a step is real."""
    series = [torch.tensor(row["series"], dtype=torch.float32) for row in rows]
    return {
        "inputs_embeds": pad_sequence(series, batch_first=True),
        "attention_mask": pad_sequence([torch.ones(len(one), dtype=torch.long) for one in series], batch_first=True),
        "labels": torch.tensor([row["label"] for row in rows]),
    }


channels = len(rows["train"][0]["series"][0])
model = URLSTMForSequenceClassification(
    URLSTMConfig(input_size=channels, hidden_size=64, id2label=names, label2id={name: i for i, name in names.items()})
)
arguments = TrainingArguments(
    folder, num_train_epochs=30, learning_rate=5e-3, per_device_train_batch_size=16, report_to="none",
    remove_unused_columns=False, eval_strategy="epoch", save_strategy="epoch", load_best_model_at_end=True,
)  # fmt: skip
trainer = Trainer(model, arguments, train_dataset=rows["train"], eval_dataset=rows["test"], data_collator=batch)
trainer.train()
trainer.save_model(folder)  # AutoModelForSequenceClassification.from_pretrained(folder), once urzoo is imported
