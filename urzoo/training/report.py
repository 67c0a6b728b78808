"""Looking after the person in front of a run: what is said, stopping with the state saved, failures in one line."""

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from urzoo.training.log import LogLine, TrainingLine
from urzoo.training.scores import Score


class Reporter:
    """Says what goes on, in lines on stderr."""

    def __init__(self, *, enabled: bool) -> None:
        self.enabled = enabled

    def __call__(self, message: str) -> None:
        """Say a line."""
        if self.enabled:
            sys.stderr.write(f"{message}\n")
            sys.stderr.flush()


class ProgressReport(TrainerCallback):
    """The steps, the latest loss and validation score: as a bar on a terminal, elsewhere a line for each of the log."""

    def __init__(self, title: str, score: Score, say: Reporter) -> None:
        self._title, self._score, self._say = title, score, say
        self._latest: dict[str, str] = {}
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[scores]}", markup=False),
            console=Console(stderr=True),
            disable=not (say.enabled and sys.stderr.isatty()),
        )
        self._task = self._bar.add_task(title, scores="")

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, *_: Any, **__: Any) -> None:  # noqa: ARG002
        """Show the bar."""
        self._bar.start()
        self._bar.update(self._task, total=state.max_steps, completed=state.global_step)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, *_: Any, **__: Any) -> None:  # noqa: ARG002
        """Advance."""
        self._bar.update(self._task, completed=state.global_step)

    def show(self, line: LogLine) -> None:
        """Show a line of the log."""
        if isinstance(line, TrainingLine):
            self._latest["training"] = f"loss {line.loss:.4g}"
            text = f"loss {line.loss:.4g}, {line.tokens_per_second:,.0f} tokens a second"
        else:
            score = self._score
            self._latest["validation"] = f"validation {score.label} {score.scale * line.scores[score.name]:.4g}"
            text = ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in line.scores.items())
            text = f"validation {text}"
        if self._bar.disable:
            self._say(f"{self._title} step {line.step:,}: {text}")
        else:
            self._bar.update(self._task, scores="  ".join(self._latest.values()))

    def stop(self) -> None:
        """Leave the terminal in order; harmless when called again."""
        self._bar.stop()


class StopOnSignal(TrainerCallback):
    """Ends training after the step in which a signal came, with the state saved."""

    received: int | None = None

    @contextlib.contextmanager
    def listening(self, processes: int) -> Iterator[None]:
        """Within this block Ctrl-C and SIGTERM end the run after the present step, with its state saved.

        A second signal acts at once. With several processes the signals keep their usual effect, as the processes
        would stop at different steps and wait for each other: the last saved state is what such a run goes on from.
        """
        if processes > 1 or threading.current_thread() is not threading.main_thread():
            yield
            return

        former = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

        def restore() -> None:
            for number, handler in former.items():
                signal.signal(number, handler)

        def receive(number: int, _: FrameType | None) -> None:
            self.received = number
            restore()

        try:
            for number in former:
                signal.signal(number, receive)
            yield
        finally:
            restore()

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:  # noqa: ARG002
        """Ask for the state and the end where a signal came."""
        if self.received is not None:
            control.should_save = control.should_training_stop = True
