"""Bounds on what a Hub can make a request cost: time, memory, requests; and where a token may go.

huggingface_hub sends the requests, over one HTTP client that a process shares; some it retries by itself for up to
half a minute, some it never retries, and most have no time limit. Inside `guarded` that client is held to a `Budget`,
and a passing fault (408, 429, 5xx, a timeout, a cut connection) leaves it as `PassingError`, which huggingface_hub does
not catch. Outside of it the guard does nothing.

Time is bounded by progress, not by silence: each byte that comes or goes earns a little time, so a server that
trickles runs out of it as one that says nothing does. Bytes are counted below HTTP, where headers count as well: a
guarded request asks to be traced, and the trace tells of each stream of the network that is opened for it. One that
was opened outside of a guard in the seconds before, and is used again, is bounded by silence alone.
"""

import contextlib
import contextvars
import email.utils
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpcore2
import httpx2
from huggingface_hub import get_session

from urzoo.errors import UrzooError, one_line

# A listing of a checkpoint is one page; a search of an owner's models a few.
_MOST_PAGES = 100
# Of an answer that is read as a whole. Files are streamed, and held to their listed size.
_LARGEST_ANSWER_BYTES = 64 * 1024**2


class HubError(UrzooError):
    """The Hub refused a request, or what it holds is not what urzoo accepts."""


class PassingError(RuntimeError):
    """A request failed in a way that may pass; `Connection.attempt` repeats it. Not for callers."""

    def __init__(
        self, reason: str, *, wait_seconds: float | None = None, unreachable: bool = False, silent: bool = False
    ) -> None:
        super().__init__(reason)
        self.wait_seconds = wait_seconds
        self.unreachable = unreachable  # no connection came about
        self.silent = silent  # it did, and then nothing came


@dataclass(frozen=True)
class Patience:
    """How long a push or pull goes on trying.

    Args:
        attempts: How often a step is tried in all without any of it getting further.
        first_wait_seconds: The wait after the first failure; it doubles after each further one.
        longest_wait_seconds: The longest single wait. A Hub that asks for more (Retry-After) is taken at its
            word: urzoo gives up and says so.
        connect_seconds: For a connection to come about.
        silence_seconds: For the Hub to say nothing while a request is on its way.
        stalled_seconds: For a step of the operation to get no further, waits and repetitions included.
        least_bytes_per_second: What a step must make on average after that time: this many bytes earn a second.
    """

    attempts: int = 5
    first_wait_seconds: float = 1.0
    longest_wait_seconds: float = 60.0
    connect_seconds: float = 8.0
    silence_seconds: float = 30.0
    stalled_seconds: float = 60.0
    least_bytes_per_second: float = 10_000.0


@dataclass
class Budget:
    """The time an operation has left; it is spent by the clock and earned by progress, up to what it began with."""

    patience: Patience
    ends: float = field(init=False)

    def __post_init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """A step is done: the next one has all the time again."""
        self.ends = time.monotonic() + self.patience.stalled_seconds

    def earn(self, transferred_bytes: int) -> None:
        """Bytes came or went."""
        earned = transferred_bytes / self.patience.least_bytes_per_second
        self.ends = min(time.monotonic() + self.patience.stalled_seconds, self.ends + earned)

    @property
    def left_seconds(self) -> float:
        """What is left; below zero when it is spent."""
        return self.ends - time.monotonic()


@dataclass
class Guard:
    """What the requests of one step are held to."""

    endpoint: str
    token: str | None
    patience: Patience
    budget: Budget
    pages: int = 0


_active: contextvars.ContextVar[Guard | None] = contextvars.ContextVar("guard", default=None)


@contextlib.contextmanager
def guarded(guard: Guard) -> Iterator[None]:
    """Guard the requests that this thread sends in the block.

    The client is the process's shared one, made by whatever factory the user set, so it is changed as little
    as can be: `send` of this object is wrapped, once, and looks at a context variable.
    """
    try:
        client = get_session()
    except (ImportError, OSError, ValueError) as error:
        raise HubError(f"a proxy or certificates set in the environment cannot be used: {one_line(error)}") from None
    send = client.send
    if not hasattr(send, "guards"):

        def guarded_send(request: httpx2.Request, **options: Any) -> httpx2.Response:
            active = _active.get()
            return send(request, **options) if active is None else _send(send, request, active, options)

        guarded_send.guards = True  # type: ignore[attr-defined]
        setattr(client, "send", guarded_send)  # noqa: B010 - mypy knows that methods are not assigned to
    token = _active.set(guard)
    try:
        yield
    finally:
        _active.reset(token)


def _send(
    send: Callable[..., httpx2.Response], request: httpx2.Request, guard: Guard, options: dict[str, Any]
) -> httpx2.Response:
    patience = guard.patience
    _check_place(request, guard)
    limits = httpx2.Timeout(patience.silence_seconds, connect=patience.connect_seconds)
    request.extensions = {**request.extensions, "timeout": limits.as_dict(), "trace": _trace}
    try:
        response = send(request, **{**options, "stream": True})
        if not options.get("stream") and response.status_code not in (408, 429) and response.status_code < 500:
            response = read_answer(response)
    except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
        raise PassingError(str(error) or "no connection in time", unreachable=True) from None
    except httpx2.TimeoutException:
        raise timed_out(guard) from None
    except (httpx2.NetworkError, httpx2.RemoteProtocolError):
        raise PassingError("the connection was cut") from None
    status = response.status_code
    if status in (408, 429) or status >= 500:
        response.close()
        raise PassingError(f"the Hub answers {status}", wait_seconds=_asked_wait(response.headers))
    return response


def timed_out(guard: Guard | None = None) -> PassingError:
    """The fault behind a timeout of the client."""
    guard = guard or _active.get()
    if guard is None or guard.budget.left_seconds > 0:
        seconds = guard.patience.silence_seconds if guard else 0
        return PassingError(f"no answer for {seconds:g} s", silent=True)
    return PassingError(f"nothing came, or too little, for {guard.patience.stalled_seconds:g} s", silent=True)


def _check_place(request: httpx2.Request, guard: Guard) -> None:
    """Keep the token, and reading, to the Hub's own address. Uploads go where the Hub says, without the token."""
    if _origin(str(request.url)) != _origin(guard.endpoint):
        if request.method == "GET":
            raise HubError(f"the Hub sends to another host, {request.url.host}, which is not asked")
        if guard.token and guard.token in request.headers.get("Authorization", ""):
            del request.headers["Authorization"]
    elif request.method == "GET":
        guard.pages += 1
        if guard.pages > _MOST_PAGES:
            raise HubError(f"the Hub's answer has more than {_MOST_PAGES} pages")


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def read_answer(response: httpx2.Response) -> httpx2.Response:
    """An answer that is read as a whole, up to a size."""
    try:
        content = b""
        for chunk in response.iter_bytes():
            content += chunk
            if len(content) > _LARGEST_ANSWER_BYTES:
                raise HubError(f"the Hub's answer has more than {_LARGEST_ANSWER_BYTES} bytes")
    finally:
        response.close()
    headers = response.headers.copy()
    headers.pop("Content-Encoding", None)  # undone by now
    return httpx2.Response(
        response.status_code,
        headers=headers,
        content=content,
        request=response.request,
        extensions=response.extensions,
        history=response.history,
        default_encoding=response.default_encoding,
    )


def _asked_wait(headers: httpx2.Headers) -> float | None:
    """The seconds a Retry-After header asks for, in either of its two forms."""
    value = headers.get("Retry-After", "").strip()
    if value.isdecimal() and len(value) < 10:
        return float(value)
    moment = email.utils.parsedate_tz(value)
    return max(0.0, email.utils.mktime_tz(moment) - time.time()) if moment else None


def _trace(_: str, told: Mapping[str, Any]) -> None:
    """Hold what a request opens to the budget of the guard that is active as it is used."""
    stream = told.get("return_value")
    if not isinstance(stream, httpcore2.NetworkStream):
        return
    plain_read, plain_write = stream.read, stream.write

    def read(max_bytes: int, timeout: float | None = None) -> bytes:
        guard = _active.get()
        if guard is None:
            return plain_read(max_bytes, timeout)
        content = plain_read(max_bytes, _limit(guard, timeout, httpcore2.ReadTimeout))
        guard.budget.earn(len(content))
        return content

    def write(buffer: bytes, timeout: float | None = None) -> None:
        guard = _active.get()
        if guard is None:
            plain_write(buffer, timeout)
            return
        for start in range(0, len(buffer), 1 << 16):  # in portions, so that a slow upload is seen to advance
            part = buffer[start : start + (1 << 16)]
            plain_write(part, _limit(guard, timeout, httpcore2.WriteTimeout))
            guard.budget.earn(len(part))

    # The connection keeps this object; mypy knows that methods are not assigned to.
    setattr(stream, "read", read)  # noqa: B010
    setattr(stream, "write", write)  # noqa: B010


def _limit(guard: Guard, timeout: float | None, error: type[Exception]) -> float:
    left = guard.budget.left_seconds
    if left <= 0:
        raise error("the budget is spent")
    return left if timeout is None else min(left, timeout)
