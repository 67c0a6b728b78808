"""Self-training: an earlier classifier gives labels to texts that have none, and a new one learns from them too.

The labels are made once and kept in the cache, as they are a function of the teacher and the texts alone:

    <cache>/taught/<digest>/classes.npy      the class that the teacher finds likeliest, int64
    <cache>/taught/<digest>/confidence.npy   the probability that it gives to it, float32
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field

from urzoo import zoo
from urzoo.data import Split, load_split
from urzoo.errors import CheckpointError, DataError, RecipeError
from urzoo.evaluation.problem import Precision
from urzoo.evaluation.sequence_classification import TextClassification
from urzoo.evaluation.task import load_task
from urzoo.files import whole_folder
from urzoo.schema import Name, Number, Strict, content_sha256, read_yaml
from urzoo.training.initial import find_checkpoint, recorded
from urzoo.zoo.schema import CheckpointInfo, InitialCheckpoint, TrainingData


class TeacherRecipe(Strict):
    """An earlier classifier whose answers stand in for labels on rows that have none.

    `checkpoint` is in the folder of runs or shipped, and held the same rows out as its pupil does; `split` is that of
    the rows without labels. Of these, the ones count whose class it gives at least `minimum_confidence`.
    """

    checkpoint: Name
    split: Name
    minimum_confidence: Annotated[Number, Field(ge=0, lt=1)]


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
    recipe: TeacherRecipe
    data_name: str

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
        split = load_split(self.data_name, self.recipe.split, data_root=data_root)
        key = {"format": 1, "teacher": self.info.checkpoint_sha256, "data": split.digest}
        folder = cache / "taught" / content_sha256(key)
        if not folder.is_dir():
            found, confidence = self._answers(split)
            with whole_folder(folder) as place:
                np.save(place / "classes.npy", found, allow_pickle=False)
                np.save(place / "confidence.npy", confidence, allow_pickle=False)
        found = np.load(folder / "classes.npy", allow_pickle=False)
        confident = np.load(folder / "confidence.npy", allow_pickle=False) >= self.recipe.minimum_confidence
        rows = np.flatnonzero(confident)
        if not len(rows):
            raise DataError(
                f"teacher.minimum_confidence is {self.recipe.minimum_confidence}, but {self.info.name} is that "
                f"sure of no row of {split.name} ({split.split}). Lower it."
            )
        texts = split.texts
        record = TrainingData.of(split.data_set, split.split, split.digest, train=len(rows))
        return Taught([texts[row] for row in rows], found[rows], record)

    def _answers(self, split: Split) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """The class and its probability for each text, from the scores that the harness would have of it."""
        assert self.info.task is not None
        folder, precision = self.info.folder, Precision(torch.device("cpu"), "float32")
        problem = TextClassification(load_task(self.info.task), folder, zoo.load(folder), split, precision)
        found, confidence = np.empty(split.rows, np.int64), np.empty(split.rows, np.float32)
        for rows in problem.batches(problem.default_batch_size, split.rows):
            probabilities = torch.from_numpy(problem.outputs(rows)["scores"]).softmax(-1)
            largest, number = probabilities.max(-1)
            found[rows], confidence[rows] = number.numpy(), largest.numpy()
        return found, confidence


def find_teacher(
    section: TeacherRecipe, runs: Path, *, task: str, architecture: str, data: Mapping[str, Any]
) -> Teacher:
    """The teacher that a recipe names.

    Args:
        section: The section of the recipe.
        runs: Where trained checkpoints are; a shipped one is taken where there is none of that name.
        task: The pupil's.
        architecture: The pupil's.
        data: The pupil's section `data`: the rows that it holds out.

    Raises:
        RecipeError: There is no such checkpoint, it is no classifier of the same rows, or it has learnt from rows that
            its pupil holds out.
        CheckpointError: A file of it is missing or damaged.
    """
    info = find_checkpoint(section.checkpoint, runs, key="teacher.checkpoint")
    if info.task != task or info.architecture != architecture:
        raise RecipeError(
            f"teacher.checkpoint is {info.name}, a {info.architecture} for task {info.task}; expected a "
            f"{architecture} for task {task}."
        )
    own = read_yaml(info.folder / "recipe.yaml", error=CheckpointError)
    if not isinstance(own, dict) or own.get("data") != data:
        raise RecipeError(
            f"teacher.checkpoint is {info.name}, whose recipe has other rows held out: its section data must be that "
            "of this recipe, or the pupil would be judged on rows that its teacher has learnt from."
        )
    return Teacher(info, section, str(data["name"]))
