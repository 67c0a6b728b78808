"""Evaluate a classifier with the `evaluate` library: python evaluator.py

Give the checkpoint's path or a model, not a pipeline: evaluate 0.4.6 compares a pipeline with a class that
transformers 5 no longer has. `urzoo eval` measures the same on whole, verified test splits.
"""

from evaluate import evaluator

import urzoo
from urzoo.evaluation.metrics import Accuracy

checkpoint = urzoo.path("urlstm-128-smnist")
rows = urzoo.data.load_split("mnist", "test").select(range(100)).to_dataset()
labels = {label: index for index, label in enumerate(rows.features["label"].names)}
measured = evaluator("image-classification").compute(
    str(checkpoint), rows, metric=Accuracy(keep_in_memory=True), label_mapping=labels
)
print(measured["accuracy"])
