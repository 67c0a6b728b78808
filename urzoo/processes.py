"""Several processes sharing one job, as `accelerate launch` starts them; or the one there is."""

import atexit
import contextlib
import gc
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import distributed

from urzoo.errors import UrzooError, one_line


def _end_group_at_exit() -> None:
    """Have torch's process group ended before the interpreter; to be called before the group is made.

    A thread of gloo that drops the last reference to a tensor while the interpreter ends aborts the process ("terminate
    called without an active exception", https://github.com/pytorch/pytorch/issues/190489). A group ends its threads
    once nothing refers to it any more.
    """
    if not Processes.started_together():
        return
    # Imported later, it would keep the group alive: its functions have it as the default of an argument.
    import torch.distributed.nn.functional  # noqa: F401

    atexit.unregister(_end_group)
    atexit.register(_end_group)


def _end_group() -> None:
    if distributed.is_available() and distributed.is_initialized():
        gc.collect()  # a trainer and its parallel model, which refer to each other and to the group
        distributed.destroy_process_group()


@contextlib.contextmanager
def meeting() -> Iterator[None]:
    """Bring the processes of a run together in this block, where there are several.

    Raises:
        UrzooError: The others cannot be reached.
    """
    _end_group_at_exit()
    try:
        yield
    except (RuntimeError, ValueError) as failure:
        # Where LOCAL_RANK alone is set, accelerate looks for the others too.
        if not Processes.started_together() and "LOCAL_RANK" not in os.environ:
            raise
        raise UrzooError(f"the processes of this run cannot reach each other: {one_line(failure)}.") from failure


@dataclass(frozen=True)
class Processes:
    """This process's number and how many there are."""

    number: int
    count: int

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.number == 0

    @staticmethod
    def started_together() -> bool:
        """Whether a launcher started several processes."""
        return int(os.environ.get("WORLD_SIZE", "1")) > 1

    @classmethod
    def present(cls, device: torch.device) -> "Processes":
        """The processes of this run, brought together if there are several.

        Raises:
            UrzooError: The others cannot be reached.
        """
        if not cls.started_together():
            return cls(0, 1)
        from accelerate import PartialState

        with meeting():
            state = PartialState(cpu=device.type == "cpu")
        return cls(state.process_index, state.num_processes)

    def gathered(self, parts: dict[int, Any]) -> dict[int, Any]:
        """The union of what every process holds, on every process.

        Raises:
            UrzooError: A process has ended before it gave its part.
        """
        if self.count == 1:
            return parts
        from accelerate.utils import gather_object

        with self.reporting_lost("the finished batches"):
            return dict(gather_object(list(parts.items())))

    def wait(self) -> None:
        """Go on when all processes have come here.

        Raises:
            UrzooError: A process has ended before it came.
        """
        if self.count > 1:
            from accelerate import PartialState

            with self.reporting_lost("the finished batches"):
                PartialState().wait_for_everyone()

    @contextlib.contextmanager
    def reporting_lost(self, resume_from: str) -> Iterator[None]:
        """Say in one line that another process has ended, not torch's traceback from the middle of a message to it.

        Args:
            resume_from: What the same command goes on from.

        Raises:
            UrzooError: A message to or from another process failed.
        """
        try:
            yield
        except RuntimeError as failure:
            if self.count == 1 or not (isinstance(failure, distributed.DistError) or "gloo" in str(failure)):
                raise
            raise UrzooError(
                f"process {self.number} of {self.count} lost another one: {one_line(failure)}. "
                f"The same command goes on from {resume_from}."
            ) from failure
