"""What a kind of recipe prepares for a run, and what it prepares it from.

The run, the trainer and the writer of checkpoints know a kind by its job alone.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from urzoo.data import Split, load_split
from urzoo.data.digest import order_digest
from urzoo.errors import UsageError
from urzoo.models import PixelSequenceImageProcessor
from urzoo.processes import Processes
from urzoo.training.batches import Batch, TrainingSamples
from urzoo.training.report import Reporter
from urzoo.zoo.schema import CheckpointInfo, TrainingData


@dataclass(frozen=True)
class Parents:
    """The earlier checkpoints that one comes from: whose weights it begins with, and who labelled rows for it.

    Their files have been found complete and unchanged.
    """

    initial: CheckpointInfo | None = None
    teacher: CheckpointInfo | None = None

    def data(self) -> tuple[TrainingData, ...]:
        """What the weights to begin with had learnt from."""
        training = None if self.initial is None else self.initial.training
        return () if training is None else (training.data, *training.additional_data)


@dataclass(frozen=True)
class Sources:
    """What a kind prepares its job from.

    Attributes:
        data_root: As for `urzoo.data.load_split`.
        cache: A folder for what can be made again.
        processes: Those of the run.
        say: Says a line.
        data: The split that the recipe names, where the caller has it at hand.
        parents: The earlier checkpoints that the recipe names.
        orders: Digests of what has been read so far, of its order too.
    """

    data_root: Path | str | None
    cache: Path
    processes: Processes
    say: Reporter
    data: Split | None
    parents: Parents
    orders: list[str] = field(default_factory=list)

    def split(self, name: str, split: str) -> Split:
        """The split of a data set that a recipe names.

        Raises:
            UsageError: The caller gave another one.
            DataError: It cannot be had.
        """
        if self.data is None:
            return self.read(name, split)
        if (self.data.name, self.data.split) != (name, split):
            self.refuse_data(f"{name} ({split})")
        self.orders.append(order_digest(self.data.columns))
        return self.data

    def read(self, name: str, split: str) -> Split:
        """A split of a data set beside the one that the caller may give.

        Raises:
            UsageError: There is none of that name.
            DataError: It cannot be had.
        """
        self.say(f"reading {name} ({split})")
        found = load_split(name, split, data_root=self.data_root)
        self.orders.append(order_digest(found.columns))
        return found

    def refuse_data(self, read: str) -> None:
        """Refuse a split from the caller; `read` says what the recipe reads in its place.

        Raises:
            UsageError: There is one.
        """
        if self.data is not None:
            raise UsageError(
                f"data is {self.data.name} ({self.data.split}), but the recipe reads {read}; leave data out."
            )


class Carried(Protocol):
    """What a kind carries from one step to the next, which each state holds too."""

    def tensors(self) -> dict[str, Tensor]:
        """What is carried, of the rows of all processes; every process calls this."""
        ...

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from what `tensors` gave."""
        ...


@dataclass(frozen=True)
class Job:
    """A run's work.

    Attributes:
        model: Freshly drawn, or with the weights to begin with.
        training: What to learn from.
        scores: The validation scores of a model, which is in evaluation mode; of several processes all call it.
        data: What training.json says of the data: those of the recipe first, then others that were learnt from.
        digest: That of everything that is read; a state belongs to it.
        size: What is said of the data when training begins.
        loss: The loss of this process's rows of a step, from the model, the batch and the step counted from 0; None
            where the model gives it by itself.
        unlabelled_loss: A further loss, from the model, the inputs of the batch that have no labels, and a seed.
        carried: What is carried from step to step.
        preprocessor: What is shipped with the model; None where it takes the data as they are.
        further_scores: Scores of the finished model under other conditions, which are written and choose nothing.
    """

    model: PreTrainedModel
    training: TrainingSamples
    scores: Callable[[PreTrainedModel], dict[str, float]]
    data: Sequence[TrainingData]
    digest: str
    size: str
    loss: Callable[[nn.Module, Batch, int], Tensor] | None = None
    unlabelled_loss: Callable[[nn.Module, Batch, int], Tensor] | None = None
    carried: Carried | None = None
    preprocessor: PixelSequenceImageProcessor | PreTrainedTokenizerFast | None = None
    further_scores: Callable[[PreTrainedModel], dict[str, float]] | None = None
