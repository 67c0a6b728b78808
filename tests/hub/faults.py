"""What the test Hub can be told to do wrong, and the log of what it was asked."""

import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Fault:
    """One way to fail, applied to the requests whose "METHOD /path?query" matches `pattern`.

    With `after` the request is carried out first and only its answer is lost, which is how a client
    comes not to know whether its commit was made.
    """

    pattern: str = ""
    status: int | None = None  # answer with this status
    retry_after: str | None = None  # and this header
    cut: bool = False  # close the connection without an answer
    keep_bytes: int | None = None  # send this much of the body, then close the connection
    delay_seconds: float = 0.0  # answer late
    dribble_seconds: float = 0.0  # send the body byte by byte, with this pause after each
    dribble_headers: bool = False  # the headers as well
    after: bool = False
    flip_byte: int | None = None  # damage one byte of the body
    action: Callable[[], object] | None = None  # something else happens while the request is on its way
    skip: int = 0  # let this many matching requests pass first
    times: int = 1  # then fail this many
    hits: int = 0


@dataclass
class Request:
    method: str
    path: str  # with the query
    headers: dict[str, str]
    status: int | None = None  # None: no answer was sent
    body_bytes: int = 0

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


@dataclass
class Faults:
    """The armed faults and the request log of one server."""

    armed: list[Fault] = field(default_factory=list)
    log: list[Request] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def arm(self, fault: Fault) -> Fault:
        with self.lock:
            self.armed.append(fault)
        return fault

    def take(self, request: Request) -> Fault | None:
        """Log the request and give the fault it falls to, if any."""
        with self.lock:
            self.log.append(request)
            for fault in self.armed:
                if re.search(fault.pattern, str(request)):
                    fault.hits += 1
                    if fault.skip < fault.hits <= fault.skip + fault.times:
                        return fault
        return None

    def asked(self, pattern: str = "") -> list[str]:
        """The logged requests that match, as "METHOD /path?query"."""
        with self.lock:
            return [str(request) for request in self.log if re.search(pattern, str(request))]
