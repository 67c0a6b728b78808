"""Callbacks that look after the person in front of the run: a progress bar, and stopping with the state saved."""

import signal
from collections.abc import Callable
from types import FrameType
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class ProgressBar(TrainerCallback):
    """A bar on stderr with the latest training loss and validation accuracy; for terminals."""

    def __init__(self, title: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[scores]}", markup=False),
            console=Console(stderr=True),
        )
        self._task = self._progress.add_task(title, scores="")
        self._scores: dict[str, str] = {}

    def on_train_begin(
        self,
        args: TrainingArguments,  # noqa: ARG002 - the base's signature
        state: TrainerState,
        control: TrainerControl,  # noqa: ARG002
        **options: Any,  # noqa: ARG002
    ) -> None:
        """Show the bar."""
        self._progress.start()
        self._progress.update(self._task, total=state.max_steps, completed=state.global_step)

    def on_step_end(
        self,
        args: TrainingArguments,  # noqa: ARG002 - the base's signature
        state: TrainerState,
        control: TrainerControl,  # noqa: ARG002
        **options: Any,  # noqa: ARG002
    ) -> None:
        """Advance."""
        self._progress.update(self._task, completed=state.global_step)

    def on_log(
        self,
        args: TrainingArguments,  # noqa: ARG002 - the base's signature
        state: TrainerState,  # noqa: ARG002
        control: TrainerControl,  # noqa: ARG002
        logs: dict[str, float] | None = None,
        **options: Any,  # noqa: ARG002
    ) -> None:
        """Show the latest scores."""
        logs = logs or {}
        if "loss" in logs:
            self._scores["loss"] = f"loss {logs['loss']:.3f}"
        if "eval_accuracy" in logs:
            self._scores["accuracy"] = f"validation {100 * logs['eval_accuracy']:.2f} %"
        self._progress.update(self._task, scores="  ".join(self._scores.values()))

    def stop(self) -> None:
        """Leave the terminal in order; harmless when called again."""
        self._progress.stop()


class StopOnSignal(TrainerCallback):
    """Ends training after the step in which a signal came, with the state saved."""

    def __init__(self) -> None:
        self.received: int | None = None
        self.former: dict[signal.Signals, Callable[[int, FrameType | None], Any] | int | None] = {}

    def receive(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - a signal handler's signature
        """Note the signal; from here on a second one has its usual effect."""
        self.received = number
        for known, handler in self.former.items():
            signal.signal(known, handler)

    def on_step_end(
        self,
        args: TrainingArguments,  # noqa: ARG002 - the base's signature
        state: TrainerState,  # noqa: ARG002
        control: TrainerControl,
        **options: Any,  # noqa: ARG002
    ) -> None:
        """Ask for the state and the end where a signal came."""
        if self.received is not None:
            control.should_save = True
            control.should_training_stop = True
