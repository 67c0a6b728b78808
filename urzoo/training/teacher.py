"""Self-training: an earlier classifier gives labels to texts that have none, and a new one learns from them too.

The labels are made once and kept in the cache, as they are a function of the teacher and the texts alone:

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
from urzoo.data import Split, load_split
from urzoo.errors import DataError
from urzoo.evaluation.problem import Precision
from urzoo.evaluation.sequence_classification import TextClassification
from urzoo.evaluation.task import load_task
from urzoo.files import whole_folder
from urzoo.schema import Name, Number, Strict, content_sha256
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


def taught_texts(
    recipe: TeacherRecipe, teacher: CheckpointInfo, data_name: str, *, data_root: Path | str | None, cache: Path
) -> tuple[list[str], Labels, TrainingData]:
    """Label the split that a recipe names, or find the labels in the cache.

    Args:
        recipe: The section of the recipe.
        teacher: The checkpoint that it names.
        data_name: The data set.
        data_root: As for `urzoo.data.load_split`.
        cache: A folder for what can be made again.

    Returns:
        The texts that the teacher was confident about, its classes, and what training.json says of them.

    Raises:
        UsageError: The teacher has other classes than the data set.
        DataError: The split cannot be had, or the teacher is confident about none of it.
    """
    split = load_split(data_name, recipe.split, data_root=data_root)
    key = {"format": 1, "teacher": teacher.checkpoint_sha256, "data": split.digest}
    folder = cache / "taught" / content_sha256(key)
    if not folder.is_dir():
        found, confidence = _answers(teacher, split)
        with whole_folder(folder) as made:
            np.save(made / "classes.npy", found, allow_pickle=False)
            np.save(made / "confidence.npy", confidence, allow_pickle=False)
    found = np.load(folder / "classes.npy", allow_pickle=False)
    rows = np.flatnonzero(np.load(folder / "confidence.npy", allow_pickle=False) >= recipe.minimum_confidence)
    if not len(rows):
        raise DataError(
            f"teacher.minimum_confidence is {recipe.minimum_confidence}, but {teacher.name} is that "
            f"sure of no row of {split.name} ({split.split}). Lower it."
        )
    texts = split.texts
    record = TrainingData.of(split.data_set, split.split, split.digest, train=len(rows))
    return [texts[row] for row in rows], found[rows], record


def _answers(teacher: CheckpointInfo, split: Split) -> tuple[Labels, npt.NDArray[np.float32]]:
    """The class and its probability for each text, from the scores that the harness would have of it."""
    assert teacher.task is not None
    model, precision = zoo.load(teacher.folder), Precision(torch.device("cpu"), "float32")
    problem = TextClassification(load_task(teacher.task), teacher.folder, model, split, precision)
    found, confidence = np.empty(split.rows, np.int64), np.empty(split.rows, np.float32)
    for rows in problem.batches(problem.default_batch_size, split.rows):
        probabilities = torch.from_numpy(problem.outputs(rows)["scores"]).softmax(-1)
        largest, number = probabilities.max(-1)
        found[rows], confidence[rows] = number.numpy(), largest.numpy()
    return found, confidence
