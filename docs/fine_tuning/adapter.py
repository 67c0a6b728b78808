"""Train an adapter of a classifier of texts, a part of its numbers in place of all: python adapter.py TEXTS.csv DIR

The CSV file is as for texts.py. The adapter changes the weights of the recurrence by matrices of low rank (LoRA) and
has a head of its own; the checkpoint stays as it is. DIR/adapter gets the adapter alone, DIR the model with it.
"""

import sys

from datasets import load_dataset
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForSequenceClassification, AutoTokenizer, Trainer, TrainingArguments

import urzoo

file, folder = sys.argv[1:]
checkpoint = str(urzoo.path("urlstm-128-imdb"))
rows = load_dataset("csv", data_files=file, split="train").class_encode_column("label")
names = dict(enumerate(rows.features["label"].names))
for number, row in enumerate(rows):
    if not isinstance(row["text"], str) or row["label"] is None or len(names) < 2:
        sys.exit(f"{file} row {number} is {row}, expected a text and a label, and two labels or more in all.")
tokenizer = AutoTokenizer.from_pretrained(checkpoint)
rows = rows.map(lambda row: tokenizer(row["text"]))
model = AutoModelForSequenceClassification.from_pretrained(
    checkpoint, id2label=names, label2id={name: index for index, name in names.items()}, ignore_mismatched_sizes=True
)
adapted = get_peft_model(model, LoraConfig(
    r=8, target_modules=[], target_parameters=["recurrence.weight_ih_l0", "recurrence.weight_hh_l0"],
    modules_to_save=["head"],
))  # fmt: skip
arguments = TrainingArguments(folder, num_train_epochs=20, learning_rate=5e-3, report_to="none")
trainer = Trainer(adapted, arguments, train_dataset=rows, processing_class=tokenizer)
trainer.train()
trainer.save_model(f"{folder}/adapter")  # PeftModel.from_pretrained puts it on a model that is made as the one above
adapted.merge_and_unload().save_pretrained(folder)
tokenizer.save_pretrained(folder)  # pipeline("text-classification", model=folder) answers with your labels
