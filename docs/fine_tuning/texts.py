"""Fine-tune a classifier on your own texts: python texts.py TEXTS.csv DIR

The CSV file has the columns `text` and `label`; labels are words or numbers of your own.
"""

import sys

from datasets import load_dataset
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    EarlyStoppingCallback,
    Trainer,
    TrainingArguments,
)

import urzoo

file, folder = sys.argv[1:]
checkpoint = str(urzoo.path("urlstm-128-imdb"))  # or a name on the Hub, OWNER/NAME
rows = load_dataset("csv", data_files=file, split="train").class_encode_column("label")
names = dict(enumerate(rows.features["label"].names))
for number, row in enumerate(rows):
    if not isinstance(row["text"], str) or row["label"] is None or len(names) < 2:
        sys.exit(f"{file} row {number} is {row}, expected a text and a label, and two labels or more in all.")
tokenizer = AutoTokenizer.from_pretrained(checkpoint)
rows = rows.map(lambda row: tokenizer(row["text"])).train_test_split(test_size=0.2, seed=0)
model = AutoModelForSequenceClassification.from_pretrained(
    checkpoint, id2label=names, label2id={name: index for index, name in names.items()}, ignore_mismatched_sizes=True
)
arguments = TrainingArguments(
    folder, num_train_epochs=20, learning_rate=2e-3, per_device_train_batch_size=16, report_to="none",
    eval_strategy="epoch", save_strategy="epoch", load_best_model_at_end=True, save_total_limit=1,
)  # fmt: skip
trainer = Trainer(
    model, arguments, train_dataset=rows["train"], eval_dataset=rows["test"], processing_class=tokenizer,
    callbacks=[EarlyStoppingCallback(early_stopping_patience=3)],
)  # fmt: skip
trainer.train()
trainer.save_model(folder)  # pipeline("text-classification", model=folder) answers with your labels
