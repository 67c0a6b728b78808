"""Training on texts, which a tokenizer makes token ids of, all at once before the first step."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from urzoo.errors import CheckpointError, RecipeError
from urzoo.evaluation.task import load_task
from urzoo.schema import Name, Number, Positive, Strict, content_sha256, read_yaml
from urzoo.training.adversary import virtual_adversarial_loss
from urzoo.training.batches import Batch, PairedData, SequenceData
from urzoo.training.initial import begin_with, find_checkpoint
from urzoo.training.job import Job, Parents, Sources
from urzoo.training.recipe import (
    BatchesRecipe,
    Dropout,
    MayBeLeftOut,
    SequenceClassifierRecipe,
    SequenceRecipe,
    SequenceRunRecipe,
)
from urzoo.training.rows import build_model, rows_job
from urzoo.training.teacher import Labels, TeacherRecipe, taught_texts
from urzoo.training.text.documents import refuse_scored
from urzoo.training.text.recipe import TokenizerRecipe
from urzoo.training.text.tokenizer import encode_lines, load_or_train_tokenizer, special_id
from urzoo.training.text.tokens import Ids
from urzoo.zoo.schema import CheckpointInfo, TrainingData


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


class UnlabelledRecipe(Strict):
    """Texts without labels, of which each step takes as many as it has with labels: virtual adversarial training.

    The answers to them are to stay the same when they are moved by `radius`, relative to their length; `weight` is that
    of the answers' divergence in the loss. See `urzoo.training.adversary`; a step takes more than twice the time.
    """

    split: Name
    radius: Annotated[Number, Field(gt=0, lt=1)]
    weight: Annotated[Number, Field(gt=0)]


class TextRecipe(SequenceRecipe):
    """Texts, as the token ids of a tokenizer that the checkpoint ships.

    `initialise_from` names a checkpoint with the same tokenizer, in the folder of runs or shipped: its embedding and
    recurrent layers are what training begins with, as far as this model has them.
    """

    problem: ClassVar[str] = "text-classification"
    validation_batch_size: ClassVar[int] = 32

    model: TextModelRecipe
    tokenizer: TokenizerRecipe
    batches: TextBatchesRecipe
    run: TextRunRecipe
    initialise_from: Name | None

    def check(self) -> None:
        """Refuse a tokenizer made of a split that figures are reported on too."""
        super().check()
        refuse_scored(self.tokenizer)

    def parents(self, runs: Path) -> Parents:
        """The checkpoint to begin with; a classifier of the same rows has held the same ones out.

        Raises:
            RecipeError: There is none of that name, or it has learnt from rows that are held out here.
            CheckpointError: A file of it is missing or damaged.
        """
        found = self.named_parents(runs)
        for key, earlier in self.earlier_classifiers(found).items():
            own = read_yaml(earlier.folder / "recipe.yaml", error=CheckpointError)
            if not isinstance(own, dict) or own.get("data") != self.data.model_dump(mode="json"):
                raise RecipeError(
                    f"{key} is {earlier.name}, whose recipe has other rows held out: its section data must be that of "
                    "this recipe, or this model would be judged on rows that have been learnt from already."
                )
        return found

    def named_parents(self, runs: Path) -> Parents:
        """The checkpoint to begin with, whatever it has learnt from.

        Raises:
            RecipeError: There is none of that name.
            CheckpointError: A file of it is missing or damaged.
        """
        return super().parents(runs)

    def earlier_classifiers(self, parents: Parents) -> dict[str, CheckpointInfo]:
        """Those that have learnt the labels of the split that is read here, by the key of the recipe that names them.

        A language model that has read its texts has seen no labels.
        """
        initial = parents.initial
        if initial is None or initial.training is None or initial.architecture != self.architecture:
            return {}
        learnt = initial.training.data
        same = (learnt.name, learnt.split) == (self.data.name, self.data.split)
        return {"initialise_from": initial} if same else {}

    def refuse_changed_rows(self, sources: Sources, digest: str) -> None:
        """Refuse an earlier classifier to which the rows of this digest were others, or in another order.

        The same draw of them has held others out.

        Raises:
            RecipeError: There is one.
        """
        for key, earlier in self.earlier_classifiers(sources.parents).items():
            assert earlier.training is not None
            learnt = earlier.training.data
            if learnt.digest != digest or learnt.order_digest not in (None, sources.orders[0]):
                raise RecipeError(
                    f"{key} is {earlier.name}, which has learnt from {self.data.name} ({self.data.split}) as it was "
                    f"before it changed, and held out other rows of it. Train {earlier.name} again."
                )

    def prepare(self, sources: Sources) -> Job:
        """The texts as token ids, those that a teacher labels too, and the model.

        Raises:
            DataError: The texts, the tokenizer's or those to label cannot be had, or a row has no label.
            RecipeError: The initial checkpoint has another tokenizer or other sizes, the teacher other classes; or one
                of them has learnt from rows that are held out here.
        """
        training, validation = self.held_out(sources)
        self.refuse_changed_rows(sources, training.digest)
        tokenizer = load_or_train_tokenizer(self.tokenizer, data_root=sources.data_root, cache=sources.cache)
        # Classification pads after the text; a language model's tokenizer, before it.
        tokenizer.padding_side = "right"
        padding = special_id(tokenizer, "pad_token")
        # A padding token that is also the end of a line or a text is no padding to the model: it is learnt.
        unread = None if padding == tokenizer.eos_token_id else padding
        model = build_model(self, training.classes, vocab_size=len(tokenizer), pad_token_id=unread)
        if sources.parents.initial is not None:
            begin_with(sources.parents.initial, model, tokenizer)
        further, further_labels, further_data = self.further_texts(sources)
        held_out = _encoded(tokenizer, validation.texts)
        # Of similar length together, as in evaluation; their order changes no score.
        order = np.argsort([len(tokens) for tokens in held_out], kind="stable")
        job = rows_job(
            self,
            model,
            (training, validation),
            sources,
            training=SequenceData(
                "input_ids",
                _encoded(tokenizer, training.texts) + _encoded(tokenizer, further),
                np.concatenate([training.labels, further_labels]),
                partial(stretch, longest=self.batches.max_tokens, seed=self.run.seed),
                padding=padding,
                pool_batches=self.batches.pool_batches,
                longest=self.batches.max_tokens,
            ),
            validation=SequenceData(
                "input_ids", [held_out[row] for row in order], validation.labels[order], padding=padding
            ),
            earlier_data=(*sources.parents.data(), *further_data),
        )
        return replace(job, preprocessor=tokenizer, digest=_digest_with(job, further_data))

    def further_texts(self, sources: Sources) -> tuple[list[str], Labels, tuple[TrainingData, ...]]:  # noqa: ARG002
        """More to learn from: none."""
        return [], np.empty(0, np.int64), ()

    def refuse_labelled(self, key: str, split: str) -> None:
        """Refuse a split, named under a key, whose rows have labels.

        Raises:
            RecipeError: They have.
        """
        if split in (self.data.split, load_task(self.task).data.split):
            raise RecipeError(
                f"{key}.split is {split!r}, which has labels; name a split without, or leave the section {key} out."
            )


class TaughtTextRecipe(TextRecipe):
    """Texts with labels, and more of them without, whose labels a teacher gives (self-training)."""

    teacher: TeacherRecipe

    def splits(self) -> set[tuple[str, str]]:
        """That of the rows without labels too."""
        return {*super().splits(), (self.data.name, self.teacher.split)}

    def check(self) -> None:
        """Refuse rows to be labelled that have labels too."""
        super().check()
        self.refuse_labelled("teacher", self.teacher.split)

    def named_parents(self, runs: Path) -> Parents:
        """The checkpoint to begin with, and the teacher.

        Raises:
            RecipeError: There is none of that name, or the teacher is of another task.
            CheckpointError: A file of them is missing or damaged.
        """
        teacher = find_checkpoint(self.teacher.checkpoint, runs, key="teacher.checkpoint")
        if (teacher.task, teacher.architecture) != (self.task, self.architecture):
            raise RecipeError(
                f"teacher.checkpoint is {teacher.name}, a {teacher.architecture} for task {teacher.task}; expected a "
                f"{self.architecture} for task {self.task}."
            )
        return replace(super().named_parents(runs), teacher=teacher)

    def earlier_classifiers(self, parents: Parents) -> dict[str, CheckpointInfo]:
        """The teacher too."""
        assert parents.teacher is not None
        return {**super().earlier_classifiers(parents), "teacher.checkpoint": parents.teacher}

    def further_texts(self, sources: Sources) -> tuple[list[str], Labels, tuple[TrainingData, ...]]:
        """Those that the teacher is confident about, with its answers."""
        texts, labels, data = taught_texts(self.teacher, self.data.name, sources)
        return texts, labels, (data,)


class UnlabelledTextRecipe(TextRecipe):
    """Texts with labels, and more of them without, to which the answers are to be steady."""

    unlabelled: UnlabelledRecipe

    def splits(self) -> set[tuple[str, str]]:
        """That of the rows without labels too."""
        return {*super().splits(), (self.data.name, self.unlabelled.split)}

    def check(self) -> None:
        """Refuse rows without labels that have some too."""
        super().check()
        self.refuse_labelled("unlabelled", self.unlabelled.split)

    def prepare(self, sources: Sources) -> Job:
        """As for texts with labels, with a text without for each.

        Raises:
            DataError: As there, or the texts without labels cannot be had.
            RecipeError: As there.
        """
        job = super().prepare(sources)
        tokenizer, labelled = job.preprocessor, job.training
        assert isinstance(tokenizer, PreTrainedTokenizerFast)
        assert isinstance(labelled, SequenceData)
        split = sources.read(self.data.name, self.unlabelled.split)
        others = SequenceData(
            labelled.name,
            _encoded(tokenizer, split.texts),
            np.full(split.rows, -1, np.int64),
            labelled.changed,
            padding=labelled.padding,
            longest=labelled.longest,
        )
        record = TrainingData.of(split.data_set, split.split, split.digest, train=split.rows)
        embedding = job.model.get_input_embeddings()

        def loss(model: nn.Module, inputs: Batch, seed: int) -> Tensor:
            divergence = virtual_adversarial_loss(model, embedding, inputs, radius=self.unlabelled.radius, seed=seed)
            return self.unlabelled.weight * divergence

        return replace(
            job,
            training=PairedData(labelled, others, seed=self.run.seed),
            data=[*job.data, record],
            digest=_digest_with(job, (record,)),
            unlabelled_loss=loss,
        )


def stretch(tokens: Ids, epoch: int, row: int, *, longest: int, seed: int) -> Ids:
    """A text, or `longest` tokens of a longer one; the seed, the epoch and its row decide where they begin."""
    if len(tokens) <= longest:
        return tokens
    # The 1 sets this stream apart from those of the order, which have the same seed and epoch.
    generator = np.random.default_rng((seed, epoch, 1, row))
    start = int(generator.integers(0, len(tokens) - longest, endpoint=True))
    return tokens[start : start + longest]


def _digest_with(job: Job, further: tuple[TrainingData, ...]) -> str:
    """The digest of what a job reads and of further data; its own where there are none."""
    return content_sha256([job.digest, *(data.digest for data in further)]) if further else job.digest


def _encoded(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> list[Ids]:
    return [np.array(ids, np.int32) for ids in encode_lines(tokenizer, texts)]
