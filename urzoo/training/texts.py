"""Training on texts, which a tokenizer makes token ids of, all at once before the first step."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from transformers import PreTrainedTokenizerFast

from urzoo.data import Split
from urzoo.errors import DataError, RecipeError
from urzoo.evaluation.task import Task
from urzoo.training.batches import Batch, BatchData, EpochOrder, LengthOrder, Rows, padded
from urzoo.training.initial import Initial
from urzoo.training.model import Prepared, build_model
from urzoo.training.recipe import TextRecipe
from urzoo.training.teacher import Teacher
from urzoo.training.text.tokenizer import encode_lines, load_or_train_tokenizer

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


def check_text_task(task: Task) -> None:
    """Refuse a recipe whose model the task would not admit.

    Raises:
        RecipeError: The task is none of texts.
    """
    if task.problem != "text-classification":
        raise RecipeError(f"task is {task.name!r}, a matter of {task.problem}; expected one of text-classification.")


def prepare_texts(
    recipe: TextRecipe,
    training: Split,
    validation: Split,
    *,
    data_root: Path | str | None,
    cache: Path,
    initial: Initial | None,
    teacher: Teacher | None,
) -> Prepared:
    """What the trainer needs for a recipe of texts.

    Args:
        recipe: The recipe.
        training: The rows to learn from.
        validation: The rows held out of them.
        data_root: As for `urzoo.data.load_split`; where the tokenizer's texts come from.
        cache: A folder for what can be made again, such as the tokenizer.
        initial: The checkpoint to begin with.
        teacher: The checkpoint that labels further texts.

    Raises:
        DataError: A row has no label, the tokenizer's texts cannot be had, or those to label.
        RecipeError: The initial checkpoint has another tokenizer or other sizes, the teacher other classes.
    """
    for split in (training, validation):
        if (split.labels < 0).any():
            row = int(np.flatnonzero(split.labels < 0)[0])
            raise DataError(f"{split.name} ({split.split}) has a row without a label, {row}; name a labelled split.")
    tokenizer = load_or_train_tokenizer(recipe.tokenizer, data_root=data_root, cache=cache)
    # Classification pads after the text; a language model's tokenizer, before it.
    tokenizer.padding_side = "right"
    padding = tokenizer.pad_token_id
    assert isinstance(padding, int)
    model = build_model(recipe, training.classes, vocab_size=len(tokenizer), pad_token_id=padding)
    if initial is not None:
        initial.write_into(model, tokenizer)
    learnt, labels = _encoded(tokenizer, training.texts), training.labels
    earlier = () if initial is None else initial.data()
    if teacher is not None:
        taught = teacher.teach(data_root=data_root, cache=cache)
        learnt, labels = learnt + _encoded(tokenizer, taught.texts), np.concatenate([labels, taught.labels])
        earlier = (*earlier, taught.data)
    held_out = _encoded(tokenizer, validation.texts)
    # Of similar length together, as in evaluation; their order changes no score.
    order = np.argsort([len(tokens) for tokens in held_out], kind="stable")
    return Prepared(
        model=model,
        training=TokenData(
            learnt,
            labels,
            padding=padding,
            max_tokens=recipe.batches.max_tokens,
            seed=recipe.run.seed,
            pool_batches=recipe.batches.pool_batches,
        ),
        validation=TokenData([held_out[row] for row in order], validation.labels[order], padding=padding),
        preprocessor=tokenizer,
        initialised_from=None if initial is None else initial.record(),
        taught_by=None if teacher is None else teacher.record(),
        earlier_data=earlier,
    )


def _encoded(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> list[Tokens]:
    return [np.array(ids, np.int32) for ids in encode_lines(tokenizer, texts)]
