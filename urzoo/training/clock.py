"""The time a run takes."""

import contextlib
import time
from collections.abc import Iterator


class Clock:
    """Wall time of a run over its resumptions, and laps of it that leave pauses out."""

    def __init__(self) -> None:
        self.earlier = 0.0
        self._start = self._lap_start = time.perf_counter()
        self._pauses = 0.0

    def total(self) -> float:
        """Seconds of the run so far; `earlier` are those before this process."""
        return self.earlier + time.perf_counter() - self._start

    def lap(self) -> float:
        """Seconds since the last lap, without pauses."""
        now = time.perf_counter()
        seconds = now - self._lap_start - self._pauses
        self._lap_start, self._pauses = now, 0.0
        return seconds

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """The time within this block counts for no lap."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._pauses += time.perf_counter() - start
