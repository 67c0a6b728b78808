"""Fine-tune a language model on a text file: python language_model.py TEXT.txt DIR

The text is cut into pieces of 256 tokens. The last twentieth of them is held out; its loss decides which epoch is kept.
"""

import sys
from pathlib import Path

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments, default_data_collator

import urzoo

file, folder = sys.argv[1:]
checkpoint = str(urzoo.path("urlstm-1024-long-text"))
tokenizer = AutoTokenizer.from_pretrained(checkpoint)
ids = tokenizer(Path(file).read_text(encoding="utf-8"))["input_ids"]
pieces = [ids[start : start + 256] for start in range(0, len(ids) - 255, 256)]
if len(pieces) < 2:
    sys.exit(f"{file} has {len(ids)} tokens, expected 512 or more: some 2,000 characters.")
rows = Dataset.from_dict({"input_ids": pieces, "labels": pieces}).train_test_split(test_size=0.05, shuffle=False)
model = AutoModelForCausalLM.from_pretrained(checkpoint)
arguments = TrainingArguments(
    folder, num_train_epochs=2, learning_rate=5e-4, per_device_train_batch_size=8, gradient_accumulation_steps=2,
    bf16=True, use_cpu=not torch.cuda.is_available(), use_cache=True, report_to="none",
    eval_strategy="epoch", save_strategy="epoch", load_best_model_at_end=True,
)  # fmt: skip
trainer = Trainer(
    model, arguments, train_dataset=rows["train"], eval_dataset=rows["test"], processing_class=tokenizer,
    # The Trainer reads the loss alone: without the scores of all words a step takes a fraction of the time.
    data_collator=lambda batch: {**default_data_collator(batch), "compute_logits": False},
)  # fmt: skip
trainer.train()
trainer.save_model(folder)  # pipeline("text-generation", model=folder) goes on in the manner of your text
