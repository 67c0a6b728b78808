"""Self-training: an earlier classifier gives labels to texts that have none, and a new one learns from them too.

The labels are made once and kept in the cache, as the teacher, the texts and the classes' names decide them:

    <cache>/taught/<digest>/classes.npy      the class that the teacher finds likeliest, int64
    <cache>/taught/<digest>/confidence.npy   the probability that it gives to it, float32
"""

from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field

from urzoo import zoo
from urzoo.data import Split
from urzoo.data.digest import order_digest
from urzoo.errors import DataError
from urzoo.evaluation.problem import Precision
from urzoo.evaluation.sequence_classification import TextClassification
from urzoo.evaluation.task import load_task
from urzoo.schema import Name, Number, Strict
from urzoo.training.cache import made_once
from urzoo.training.job import Sources
from urzoo.zoo.schema import CheckpointInfo, TrainingData

Labels = npt.NDArray[np.int64]


class TeacherRecipe(Strict):
    """An earlier classifier whose answers stand in for labels on rows that have none.

    `checkpoint` is in the folder of runs or shipped, and held the same rows out as its student does; `split` is that of
    the rows without labels. Of these, the ones count whose class it gives at least `minimum_confidence`.
    """

    checkpoint: Name
    split: Name
    minimum_confidence: Annotated[Number, Field(ge=0, lt=1)]


def taught_texts(recipe: TeacherRecipe, data_name: str, sources: Sources) -> tuple[list[str], Labels, TrainingData]:
    """Label the split that a recipe names, or find the labels in the cache.

    Args:
        recipe: The section of the recipe.
        data_name: The data set.
        sources: With the teacher, which the recipe names, among the parents.

    Returns:
        The texts that the teacher was confident about, its classes, and what training.json says of them.

    Raises:
        UsageError: The teacher has other classes than the data set.
        DataError: The split cannot be had, its labels in the cache are damaged, or the teacher is confident about none.
    """
    teacher = sources.parents.teacher
    assert teacher is not None
    split = sources.read(data_name, recipe.split)
    found, confidence = made_once(
        sources.cache / "taught",
        # Row by row: the same rows in another order have others.
        {
            "format": 2,
            "teacher": teacher.checkpoint_sha256,
            "data": order_digest(split.columns),
            "classes": split.classes,  # by which its scores are brought into order
        },
        make=lambda folder: _write_answers(folder, teacher, split),
        read=lambda folder: [np.load(folder / f"{name}.npy", allow_pickle=False) for name in ("classes", "confidence")],
    )
    rows = np.flatnonzero(confidence >= recipe.minimum_confidence)
    if not len(rows):
        raise DataError(
            f"teacher.minimum_confidence is {recipe.minimum_confidence}, but {teacher.name} is that "
            f"sure of no row of {split.name} ({split.split}). Lower it."
        )
    texts = split.texts
    record = TrainingData.of(split.data_set, split.split, split.digest, train=len(rows))
    return [texts[row] for row in rows], found[rows], record


def _write_answers(folder: Path, teacher: CheckpointInfo, split: Split) -> None:
    """Write the class and its probability for each text, from the scores that the harness would have of it."""
    assert teacher.task is not None
    model, precision = zoo.load(teacher.folder), Precision(torch.device("cpu"), "float32")
    problem = TextClassification(load_task(teacher.task), teacher.folder, model, split, precision)
    found, confidence = np.empty(split.rows, np.int64), np.empty(split.rows, np.float32)
    for rows in problem.batches(problem.default_batch_size, split.rows):
        probabilities = torch.from_numpy(problem.outputs(rows)["scores"]).softmax(-1)
        largest, number = probabilities.max(-1)
        found[rows], confidence[rows] = number.numpy(), largest.numpy()
    np.save(folder / "classes.npy", found, allow_pickle=False)
    np.save(folder / "confidence.npy", confidence, allow_pickle=False)
