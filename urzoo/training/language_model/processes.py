"""The processes that share a run: one, or those that `accelerate launch` or torchrun started.

Each has its own rows of every batch. Gradients are averaged by torch's DistributedDataParallel.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from accelerate import PartialState
from accelerate.utils import gather
from torch import Tensor, nn

from urzoo.errors import RecipeError
from urzoo.processes import end_group_at_exit


@dataclass(frozen=True)
class Processes:
    """This process among all of them.

    Attributes:
        number: Counted from 0.
        count: Of all processes.
        rows: This process's rows of a batch.
        device: Where it computes.
    """

    number: int
    count: int
    rows: slice
    device: torch.device

    @classmethod
    def started(cls, batch_size: int) -> "Processes":
        """The processes as they were started.

        Raises:
            RecipeError: The rows of a batch cannot be divided evenly among them.
        """
        state = PartialState(cpu=not torch.cuda.is_available())
        count, number = int(state.num_processes), int(state.process_index)
        end_group_at_exit()
        if batch_size % count:
            raise RecipeError(
                f"run.batch_size is {batch_size}, which {count} processes cannot share evenly; expected a multiple."
            )
        share = batch_size // count
        return cls(number, count, slice(number * share, (number + 1) * share), torch.device(state.device))

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.number == 0

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """The main process goes through this block before all others."""
        if self.count == 1:
            yield
            return
        with PartialState().main_process_first():
            yield

    def wait(self) -> None:
        """Go on when all processes have come here."""
        if self.count > 1:
            PartialState().wait_for_everyone()

    def sharing(self, model: nn.Module) -> nn.Module:
        """The model to call in training, whose gradients are the mean over the processes."""
        if self.count == 1:
            return model
        devices = None if self.device.type == "cpu" else [self.device.index]
        return nn.parallel.DistributedDataParallel(model, device_ids=devices)

    def gathered(self, rows: Tensor) -> Tensor:
        """The rows of all processes, in their order."""
        if self.count == 1:
            return rows
        everyone = gather(rows.contiguous())
        assert isinstance(everyone, Tensor)
        return everyone

    def mean(self, value: float) -> float:
        """The mean of a number over the processes, added up in their order."""
        if self.count == 1:
            return value
        return float(self.gathered(torch.tensor([value], dtype=torch.float64, device=self.device)).mean())
