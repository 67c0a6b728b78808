"""Several processes sharing one job, as `accelerate launch` starts them; or the one there is."""

import atexit
import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import distributed

from urzoo.errors import UrzooError, one_line


def end_group_at_exit() -> None:
    """Have torch's process group ended before the interpreter: threads of it that live on may abort the process."""
    atexit.unregister(_end_group)
    atexit.register(_end_group)


def _end_group() -> None:
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


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

        try:
            state = PartialState(cpu=device.type == "cpu")
        except (RuntimeError, ValueError) as failure:
            raise UrzooError(f"the processes of this run cannot reach each other: {one_line(failure)}.") from failure
        end_group_at_exit()
        return cls(state.process_index, state.num_processes)

    def gathered(self, parts: dict[int, Any]) -> dict[int, Any]:
        """The union of what every process holds, on every process.

        Raises:
            UrzooError: A process has ended before it gave its part.
        """
        if self.count == 1:
            return parts
        from accelerate.utils import gather_object

        with self._telling():
            return dict(gather_object(list(parts.items())))

    def wait(self) -> None:
        """Go on when all processes have come here.

        Raises:
            UrzooError: A process has ended before it came.
        """
        if self.count > 1:
            from accelerate import PartialState

            with self._telling():
                PartialState().wait_for_everyone()

    @contextlib.contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as failure:
            raise UrzooError(
                f"process {self.number} of {self.count} lost another one: {one_line(failure)}. "
                "The same command goes on from the finished batches."
            ) from failure
