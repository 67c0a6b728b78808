"""Training on texts, which a tokenizer makes token ids of, all at once before the first step."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from transformers import PreTrainedTokenizerFast

from urzoo.data import hold_out
from urzoo.errors import DataError, RecipeError
from urzoo.schema import Name, Number
from urzoo.training.batches import Batch, BatchData, EpochOrder, LengthOrder, Rows, padded
from urzoo.training.job import Job, Parents, Sources
from urzoo.training.recipe import (
    BatchesRecipe,
    Dropout,
    MayBeLeftOut,
    Positive,
    SequenceClassifierRecipe,
    SequenceRecipe,
    SequenceRunRecipe,
)
from urzoo.training.rows import build_model, rows_job
from urzoo.training.teacher import TeacherRecipe, find_teacher
from urzoo.training.text.recipe import TokenizerRecipe
from urzoo.training.text.tokenizer import encode_lines, load_or_train_tokenizer


class TextModelRecipe(SequenceClassifierRecipe):
    """A classifier of token ids; the size of the vocabulary is the tokenizer's."""

    embedding_size: Positive
    embedding_dropout: Dropout
    token_dropout: Dropout


class TextBatchesRecipe(BatchesRecipe):
    """In training a longer text is cut to a stretch of `max_tokens`, whose place is drawn again in each epoch.

    In validation and evaluation every text is read whole.
    """

    max_tokens: Positive


class TextRunRecipe(SequenceRunRecipe):
    """With `adversarial_radius` above 0, each step also learns from its texts moved so far, relative to their length.

    They are moved to where the loss grows fastest, which takes twice the time; see `urzoo.training.adversary`. The key
    may be left out, as in recipes that are older than it; their digests stand.
    """

    adversarial_radius: MayBeLeftOut[Annotated[Number, Field(ge=0, lt=1)]] = None


class TextRecipe(SequenceRecipe):
    """Texts, as the token ids of a tokenizer that the checkpoint ships.

    `initialise_from` names a checkpoint with the same tokenizer, in the folder of runs or shipped: its embedding and
    recurrent layers are what training begins with, as far as this model has them.
    """

    validation_batch_size: ClassVar[int] = 32

    model: TextModelRecipe
    tokenizer: TokenizerRecipe
    batches: TextBatchesRecipe
    run: TextRunRecipe
    initialise_from: Name | None

    def check(self) -> None:
        """Refuse a task that is none of texts.

        Raises:
            RecipeError: It is none.
        """
        task = self.checked_task()
        if task.problem != "text-classification":
            raise RecipeError(
                f"task is {task.name!r}, a matter of {task.problem}; expected one of text-classification."
            )

    def prepare(self, sources: Sources) -> Job:
        """The texts as token ids, those that a teacher labels too, and the model.

        Raises:
            DataError: A row has no label, the tokenizer's texts cannot be had, or those to label.
            RecipeError: The initial checkpoint has another tokenizer or other sizes, the teacher other classes.
        """
        split = sources.split(self.data.name, self.data.split)
        training, validation = hold_out(split, self.data.validation_rows, self.data.validation_seed)
        for part in (training, validation):
            if (part.labels < 0).any():
                row = int(np.flatnonzero(part.labels < 0)[0])
                raise DataError(f"{part.name} ({part.split}) has a row without a label, {row}; name a labelled split.")
        tokenizer = load_or_train_tokenizer(self.tokenizer, data_root=sources.data_root, cache=sources.cache)
        # Classification pads after the text; a language model's tokenizer, before it.
        tokenizer.padding_side = "right"
        padding = tokenizer.pad_token_id
        assert isinstance(padding, int)
        model = build_model(self, training.classes, vocab_size=len(tokenizer), pad_token_id=padding)
        initial, teacher = sources.parents.initial, sources.parents.teacher
        if initial is not None:
            initial.write_into(model, tokenizer)
        learnt, labels = _encoded(tokenizer, training.texts), training.labels
        earlier = sources.parents.data()
        if teacher is not None:
            taught = teacher.teach(data_root=sources.data_root, cache=sources.cache)
            learnt, labels = learnt + _encoded(tokenizer, taught.texts), np.concatenate([labels, taught.labels])
            earlier = (*earlier, taught.data)
        held_out = _encoded(tokenizer, validation.texts)
        # Of similar length together, as in evaluation; their order changes no score.
        order = np.argsort([len(tokens) for tokens in held_out], kind="stable")
        return rows_job(
            self,
            model,
            (training, validation),
            training=TokenData(
                learnt,
                labels,
                padding=padding,
                max_tokens=self.batches.max_tokens,
                seed=self.run.seed,
                pool_batches=self.batches.pool_batches,
            ),
            validation=TokenData([held_out[row] for row in order], validation.labels[order], padding=padding),
            preprocessor=tokenizer,
            earlier_data=earlier,
        )


class TaughtTextRecipe(TextRecipe):
    """Texts with labels, and more of them without, whose labels a teacher gives (self-training)."""

    teacher: TeacherRecipe

    def check(self) -> None:
        """Refuse rows to be labelled that have labels.

        Raises:
            RecipeError: They have.
        """
        super().check()
        if self.teacher.split in (self.data.split, self.checked_task().data.split):
            raise RecipeError(
                f"teacher.split is {self.teacher.split!r}, which has labels; name a split without, or leave the "
                "section teacher out."
            )

    def parents(self, runs: Path) -> Parents:
        """The checkpoint to begin with, and the teacher.

        Raises:
            RecipeError: There is none of that name, or the teacher's rows are other ones.
            CheckpointError: A file of them is missing or damaged.
        """
        teacher = find_teacher(
            self.teacher,
            runs,
            task=self.task,
            architecture=self.architecture,
            data=self.data.model_dump(mode="json"),
        )
        return Parents(super().parents(runs).initial, teacher)


Tokens = npt.NDArray[np.int32]


class TokenData(BatchData):
    """Texts as token ids with their classes, padded on the right and masked.

    Args:
        tokens: int32, each `(time,)`.
        labels: int64, `(rows,)`.
        padding: The id that stands for no token.
        max_tokens: Longer texts are cut to a stretch of so many tokens, whose place depends on the seed, the epoch
            and the row; None to read all.
        seed: See `max_tokens`.
        pool_batches: See `LengthOrder`.
    """

    def __init__(
        self,
        tokens: Sequence[Tokens],
        labels: npt.NDArray[np.int64],
        *,
        padding: int,
        max_tokens: int | None = None,
        seed: int = 0,
        pool_batches: int = 1,
    ) -> None:
        self.tokens = tokens
        self.labels = torch.from_numpy(labels)
        self.padding = padding
        self.max_tokens = max_tokens
        self.seed = seed
        self.pool_batches = pool_batches

    def __len__(self) -> int:
        """The number of texts."""
        return len(self.tokens)

    def order(self, *, batch_size: int, seed: int) -> EpochOrder:
        """Texts of similar length together."""
        longest = self.max_tokens or np.iinfo(np.int64).max
        lengths = np.array([min(len(tokens), longest) for tokens in self.tokens])
        return LengthOrder(lengths, batch_size=batch_size, pool_batches=self.pool_batches, seed=seed)

    def batch(self, rows: Rows, *, epoch: int) -> Batch:
        """The token ids and the mask, both `(batch, time)`, and the labels of some texts."""
        texts = [torch.from_numpy(self._stretch(row, epoch)).long() for row in rows.tolist()]
        inputs, mask = padded(texts, value=self.padding)
        return {"input_ids": inputs, "attention_mask": mask, "labels": self.labels[torch.from_numpy(rows)]}

    def _stretch(self, row: int, epoch: int) -> Tokens:
        tokens = self.tokens[row]
        if self.max_tokens is None or len(tokens) <= self.max_tokens:
            return tokens
        # The 1 sets this stream apart from those of the order, which have the same seed and epoch.
        generator = np.random.default_rng((self.seed, epoch, 1, row))
        start = int(generator.integers(0, len(tokens) - self.max_tokens, endpoint=True))
        return tokens[start : start + self.max_tokens]


def _encoded(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> list[Tokens]:
    return [np.array(ids, np.int32) for ids in encode_lines(tokenizer, texts)]
