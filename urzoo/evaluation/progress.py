"""A progress bar on stderr where that is a terminal, and silence elsewhere."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress_bar(title: str, total: int, *, enabled: bool) -> Iterator[Callable[[int], None]]:
    """A bar that vanishes when it is full.

    Args:
        title: What stands before the bar.
        total: What the steps given to the yielded function add up to.
        enabled: False for none; there is none either where stderr is no terminal.
    """
    if not (enabled and sys.stderr.isatty()):
        yield lambda amount: None  # noqa: ARG005
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        """Steps a second."""

        def render(self, task: Task) -> Text:
            """The rate, or nothing before there is one."""
            return Text(f"{task.speed:,.1f}/s" if task.speed else "")

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        shown = progress.add_task(title, total=total)
        yield lambda amount: progress.advance(shown, amount)
