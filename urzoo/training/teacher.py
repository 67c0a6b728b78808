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
from urzoo.files import whole_folder
from urzoo.schema import content_sha256
from urzoo.training.batches import padded
from urzoo.training.initial import find_checkpoint, recorded
from urzoo.training.recipe import Recipe, TaughtTextRecipe, load_recipe
from urzoo.training.text.tokenizer import encode_lines
from urzoo.zoo.schema import CheckpointInfo, InitialCheckpoint, TrainingData

_ROWS_AT_ONCE = 32


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

    def teach(self, classes: list[str], *, data_root: Path | str | None, cache: Path) -> Taught:
        """Label the split that the recipe names, or find the labels in the cache.

        Args:
            classes: The names of the pupil's classes, in the order of their numbers.
            data_root: As for `urzoo.data.load_split`.
            cache: A folder for what can be made again.

        Raises:
            RecipeError: The teacher has other classes than its pupil.
            DataError: The split cannot be had, or the teacher is confident about none of it.
        """
        split = load_split(self.recipe.data.name, self.recipe.teacher.split, data_root=data_root)
        key = {"format": 1, "teacher": self.info.checkpoint_sha256, "data": split.digest}
        folder = cache / "taught" / content_sha256(key)
        if not folder.is_dir():
            found, confidence = self._answers(split, classes)
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

    @torch.no_grad()
    def _answers(self, split: Split, classes: list[str]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """The class and its probability for each text, texts of similar length together."""
        model = zoo.load(self.info.folder)
        model.eval()  # type: ignore[no-untyped-call]
        named = [name for _, name in sorted((model.config.id2label or {}).items())]
        if named != classes:
            raise RecipeError(f"teacher.checkpoint {self.info.name} has the classes {named}, expected {classes}.")
        tokenizer = zoo.load_tokenizer(self.info.folder)
        tokens = [torch.tensor(ids, dtype=torch.long) for ids in encode_lines(tokenizer, split.texts)]
        order = np.argsort([len(ids) for ids in tokens], kind="stable")
        found, confidence = np.empty(len(tokens), np.int64), np.empty(len(tokens), np.float32)
        for start in range(0, len(order), _ROWS_AT_ONCE):
            rows = order[start : start + _ROWS_AT_ONCE]
            inputs, mask = padded([tokens[row] for row in rows], value=tokenizer.pad_token_id)
            probabilities = model(input_ids=inputs, attention_mask=mask).logits.float().softmax(-1)
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
