"""Fine-tune a classifier on a folder of images: python images.py IMAGES DIR

IMAGES has one folder for each class. Images of any size, grey or in colour, with 8 bits a channel; the checkpoint's
processor makes 28 x 28 grey pixels.
"""

import sys

import torch
from datasets import load_dataset
from transformers import AutoImageProcessor, AutoModelForImageClassification, Trainer, TrainingArguments

import urzoo

images, folder = sys.argv[1:]
checkpoint = str(urzoo.path("urlstm-128-smnist"))
rows = load_dataset("imagefolder", data_dir=images, split="train")
names = dict(enumerate(rows.features["label"].names))
processor = AutoImageProcessor.from_pretrained(checkpoint)
rows = rows.train_test_split(test_size=0.2, seed=0).with_transform(
    lambda batch: {**processor(batch["image"], return_tensors="pt"), "labels": torch.tensor(batch["label"])}
)
model = AutoModelForImageClassification.from_pretrained(
    checkpoint, id2label=names, label2id={name: index for index, name in names.items()}, ignore_mismatched_sizes=True
)
arguments = TrainingArguments(
    folder, num_train_epochs=10, learning_rate=1e-3, per_device_train_batch_size=8, report_to="none",
    remove_unused_columns=False, eval_strategy="epoch", save_strategy="epoch", load_best_model_at_end=True,
)  # fmt: skip
trainer = Trainer(model, arguments, train_dataset=rows["train"], eval_dataset=rows["test"], processing_class=processor)
trainer.train()
trainer.save_model(folder)  # pipeline("image-classification", model=folder) takes a photograph
