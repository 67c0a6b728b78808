"""Self-training: an earlier classifier gives labels to texts that have none, and a new one learns from them too.

The labels are made once and kept in the cache, as they are a function of the teacher and the texts alone:

    <cache>/taught/<digest>/classes.npy      the class that the teacher finds likeliest, int64
    <cache>/taught/<digest>/confidence.npy   the probability that it gives to it, float32
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from urzoo import zoo
from urzoo.data import Split, load_split
from urzoo.errors import DataError, RecipeError
from urzoo.evaluation.problem import Precision
from urzoo.evaluation.sequence_classification import TextClassification
from urzoo.evaluation.task import load_task
from urzoo.files import whole_folder
from urzoo.schema import content_sha256
from urzoo.training.initial import find_checkpoint, recorded
from urzoo.training.recipe import Recipe, TaughtTextRecipe, load_recipe
from urzoo.zoo.schema import CheckpointInfo, InitialCheckpoint, TrainingData


@dataclass(frozen=True)
class Taught:
    """Texts with the classes that a teacher gave them.

    Attributes:
        texts: Those that it was confident about.
        labels: Its classes, int64, one a text.
        data: What training.json says of them.
    """

    texts: list[str]
    labels: npt.NDArray[np.int64]
    data: TrainingData


@dataclass(frozen=True)
class Teacher:
    """The checkpoint that answers; its files have been found complete and unchanged."""

    info: CheckpointInfo
    recipe: TaughtTextRecipe

    def record(self) -> InitialCheckpoint:
        """What the pupil's checkpoint says of it."""
        return recorded(self.info)

    def teach(self, *, data_root: Path | str | None, cache: Path) -> Taught:
        """Label the split that the recipe names, or find the labels in the cache.

        Args:
            data_root: As for `urzoo.data.load_split`.
            cache: A folder for what can be made again.

        Raises:
            UsageError: The teacher has other classes than the data set.
            DataError: The split cannot be had, or the teacher is confident about none of it.
        """
        split = load_split(self.recipe.data.name, self.recipe.teacher.split, data_root=data_root)
        key = {"format": 1, "teacher": self.info.checkpoint_sha256, "data": split.digest}
        folder = cache / "taught" / content_sha256(key)
        if not folder.is_dir():
            found, confidence = self._answers(split)
            with whole_folder(folder) as place:
                np.save(place / "classes.npy", found, allow_pickle=False)
                np.save(place / "confidence.npy", confidence, allow_pickle=False)
        found = np.load(folder / "classes.npy", allow_pickle=False)
        confident = np.load(folder / "confidence.npy", allow_pickle=False) >= self.recipe.teacher.minimum_confidence
        rows = np.flatnonzero(confident)
        if not len(rows):
            raise DataError(
                f"teacher.minimum_confidence is {self.recipe.teacher.minimum_confidence}, but {self.info.name} is that "
                f"sure of no row of {split.name} ({split.split}). Lower it."
            )
        texts = split.texts
        data = TrainingData(
            name=split.data_set.name,
            config=split.data_set.config,
            split=split.split,
            digest=split.digest,
            rows_train=len(rows),
            rows_validation=0,
        )
        return Taught([texts[row] for row in rows], found[rows], data)

    def _answers(self, split: Split) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """The class and its probability for each text, from the scores that the harness would have of it."""
        folder, precision = self.info.folder, Precision(torch.device("cpu"), "float32")
        problem = TextClassification(load_task(self.recipe.task), folder, zoo.load(folder), split, precision)
        found, confidence = np.empty(split.rows, np.int64), np.empty(split.rows, np.float32)
        for rows in problem.batches(problem.default_batch_size, split.rows):
            probabilities = torch.from_numpy(problem.outputs(rows)["scores"]).softmax(-1)
            largest, number = probabilities.max(-1)
            found[rows], confidence[rows] = number.numpy(), largest.numpy()
        return found, confidence


def find_teacher(recipe: Recipe, runs: Path) -> Teacher | None:
    """The teacher that a recipe names; None where it names none.

    Raises:
        RecipeError: There is no such checkpoint, it is no classifier of the same rows, or it has learnt from rows that
            its pupil holds out.
        CheckpointError: A file of it is missing or damaged.
    """
    if not isinstance(recipe, TaughtTextRecipe):
        return None
    info = find_checkpoint(recipe.teacher.checkpoint, runs, key="teacher.checkpoint")
    if info.task != recipe.task or info.architecture != recipe.architecture:
        raise RecipeError(
            f"teacher.checkpoint is {info.name}, a {info.architecture} for task {info.task}; expected a "
            f"{recipe.architecture} for task {recipe.task}."
        )
    own = load_recipe(info.folder / "recipe.yaml")
    if own.data != recipe.data:
        raise RecipeError(
            f"teacher.checkpoint is {info.name}, whose recipe has other rows held out: its section data must be that "
            "of this recipe, or the pupil would be judged on rows that its teacher has learnt from."
        )
    return Teacher(info, recipe)
