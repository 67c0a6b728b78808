"""Talking to the Hub so that every request ends in bounded time and fails in one known way.

huggingface_hub sends the requests, over one HTTP client that a process shares; some it retries by itself
for up to half a minute, some it never retries, and most have no time limit. Inside `Connection.attempt`
that client is guarded: each request gets time limits, and a passing fault (408, 429, 5xx, a timeout, a cut
connection) leaves it as `PassingError`, which huggingface_hub does not catch. So there is one place that
waits and repeats, honours Retry-After and gives up: `attempt`. Outside it the guard does nothing.

No message holds a token: what others wrote is cleaned of it, and the chain of causes, which holds the
request with its headers, is cut.
"""

import contextlib
import contextvars
import email.utils
import logging
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import httpx2
from huggingface_hub import HfApi, constants, get_session, get_token
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils._validators import validate_repo_id
from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

from urzoo.errors import UrzooError, UsageError

T = TypeVar("T")

logger = logging.getLogger(__name__)

_RAISED = (
    *(OSError, RuntimeError, httpx2.HTTPError, httpx2.InvalidURL),  # by huggingface_hub
    *(ValueError, KeyError, TypeError, AttributeError),  # by it too, where an answer is not the JSON it expects
)
# The first request may take this long, and twice at most, before the Hub counts as unreachable.
_FIRST_SILENCE_SECONDS = 10.0


class HubError(UrzooError):
    """The Hub refused a request, or what it holds is not what urzoo accepts."""


class UnreachableError(HubError):
    """No connection to the Hub: offline mode, no network, or no server at the endpoint."""


class GaveUpError(HubError):
    """The Hub was reached and then failed, again and again, until patience ended."""


class MissingError(HubError):
    """The repository, revision or file does not exist, or may not be seen with this token."""


class MissingRevisionError(MissingError):
    """The repository exists; the branch, tag or commit does not."""


class StaleParentError(HubError):
    """Somebody else committed to the branch first; nothing was lost, and nothing of this push was committed."""


class PassingError(RuntimeError):
    """A request failed in a way that may pass; `attempt` repeats it. Not for callers."""

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
        attempts: How often a step is tried in all.
        first_wait_seconds: The wait after the first failure; it doubles after each further one.
        longest_wait_seconds: The longest single wait. A Hub that asks for more (Retry-After) is taken at its
            word: urzoo gives up and says so.
        connect_seconds: For a connection to come about.
        silence_seconds: For the Hub to say nothing while a request is on its way.
    """

    attempts: int = 5
    first_wait_seconds: float = 1.0
    longest_wait_seconds: float = 60.0
    connect_seconds: float = 8.0
    silence_seconds: float = 30.0


class Connection:
    """One endpoint, one token, and the patience to use them with.

    Args:
        endpoint: The Hub's address; that of huggingface_hub (HF_ENDPOINT) when omitted.
        token: An access token; the one huggingface_hub finds (HF_TOKEN, `hf auth login`) when omitted.
        patience: When to repeat and when to give up.

    Raises:
        UsageError: `endpoint` is no http(s) address, or `token` holds what no token holds.
    """

    def __init__(self, endpoint: str | None = None, token: str | None = None, patience: Patience | None = None) -> None:
        self.endpoint = (endpoint or constants.ENDPOINT).rstrip("/")
        if not re.fullmatch(r"https?://[^\s/]+(/\S*)?", self.endpoint):
            raise UsageError(f"endpoint {self.endpoint!r} is not an address like https://huggingface.co")
        found = get_token() if token is None else token.strip()
        if found and not re.fullmatch(r"[\x21-\x7e]+", found):
            raise UsageError("the token holds blanks or other characters that no token has; paste it again")
        self.token = found or None
        self.patience = patience or Patience()
        self.api = HfApi(endpoint=self.endpoint, token=self.token or False, library_name="urzoo")
        self._reached = False

    def attempt(self, what: str, step: Callable[[], T], *, settled: Callable[[], T | None] | None = None) -> T:
        """The result of `step`, repeated while the faults are passing ones and patience lasts.

        Args:
            what: The step in words that complete "while ...", for the messages.
            step: Sends requests through huggingface_hub; must be safe to repeat, unless `settled` is given.
            settled: Asked before each repetition whether the step was carried out though its answer was lost;
                gives its result if so.

        Raises:
            UnreachableError: No connection, or twice no answer, at the first step: that working offline is quick.
            GaveUpError: The faults did not pass.
            HubError: The Hub refused the step for good.
        """
        wait_seconds = self.patience.first_wait_seconds
        for attempt in range(1, self.patience.attempts + 1):
            try:
                if attempt > 1 and settled is not None and (result := self._guard(settled)) is not None:
                    return result
                result = self._guard(step)
            except _RAISED as error:
                fault = _passing(error)
                if fault is None:
                    raise self._refusal(error, what) from None
            else:
                self._reached = True
                return result
            reason = self.clean(str(fault))
            if not self._reached and (fault.unreachable or (fault.silent and attempt == 2)):
                raise UnreachableError(f"the Hub at {self.endpoint} cannot be reached ({reason})") from None
            self._reached = self._reached or not fault.silent
            pause_seconds = wait_seconds if fault.wait_seconds is None else max(wait_seconds, fault.wait_seconds)
            if pause_seconds > self.patience.longest_wait_seconds:
                message = f"while {what}: {reason}, asking to wait {pause_seconds:.0f} s; try again after that"
                raise GaveUpError(message) from None
            if attempt == self.patience.attempts:
                raise GaveUpError(f"while {what}: {reason}, {attempt} times; try again later") from None
            logger.warning("while %s: %s; trying again in %.1f s", what, reason, pause_seconds)
            time.sleep(pause_seconds)
            wait_seconds = min(2 * wait_seconds, self.patience.longest_wait_seconds)
        raise AssertionError("unreachable")

    def clean(self, text: str) -> str:
        """`text` in one line, without the token, without the queries of addresses (they may be signed)."""
        if self.token:
            text = text.replace(self.token, "<token>")
        text = re.sub(r"hf_[A-Za-z0-9]{8,}", "<token>", text)
        text = re.sub(r"(https?://[^\s?]+)\?\S*", r"\1", text)
        text = " ".join("".join(char if char.isprintable() else " " for char in text).split())
        return text if len(text) <= 300 else f"{text[:297]}..."

    def _guard(self, step: Callable[[], T]) -> T:
        patience = self.patience
        if not self._reached:
            patience = replace(patience, silence_seconds=min(patience.silence_seconds, _FIRST_SILENCE_SECONDS))
        with _guarded(patience), _quiet():
            return step()

    def _refusal(self, error: BaseException, what: str) -> HubError:
        """The one-line error for what huggingface_hub raised."""
        if isinstance(error, HubError):
            return error
        if isinstance(error, OfflineModeIsEnabled):
            return UnreachableError("offline mode is on (HF_HUB_OFFLINE), so the Hub is not asked")
        who = "with this token" if self.token else "without a token (`hf auth login`, or set HF_TOKEN)"
        status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
        if isinstance(error, GatedRepoError):
            return HubError(f"while {what}: access to the repository is gated; ask for it on {self.endpoint} first")
        if isinstance(error, RepositoryNotFoundError):
            return MissingError(f"while {what}: {self.endpoint} shows no such repository {who}; check OWNER/NAME")
        if isinstance(error, RevisionNotFoundError):
            return MissingRevisionError(f"while {what}: the repository has no such branch, tag or commit")
        if isinstance(error, EntryNotFoundError):
            return MissingError(f"while {what}: the repository has no such file")
        if status == 401:
            return HubError(f"while {what}: the Hub refuses the token (401); log in again with `hf auth login`")
        if status == 403:
            return HubError(f"while {what}: the Hub does not allow this {who} (403); check the token's permissions")
        if status == 412:
            return StaleParentError(f"while {what}: the branch has a newer commit (412)")
        reason = self.clean(str(error)) or type(error).__name__
        if isinstance(error, ValueError | KeyError | TypeError | AttributeError) and status is None:
            return HubError(f"while {what}: {self.endpoint} answers what no Hub answers ({reason})")
        return HubError(f"while {what}: {reason}")


def parse_reference(reference: str) -> tuple[str, str | None]:
    """OWNER/NAME[@REVISION] as a repository and a revision.

    Raises:
        UsageError: It is not of this form.
    """
    repo_id, _, revision = reference.partition("@")
    if "@" in reference and not revision:
        raise UsageError(f"repository {reference!r} ends in '@'; name a branch, tag or commit after it, or omit it")
    return check_repo_id(repo_id), revision or None


def check_repo_id(repo_id: str) -> str:
    """`repo_id`, if it is of the form OWNER/NAME.

    Raises:
        UsageError: It is not.
    """
    expected = f"repository {repo_id!r} is not OWNER/NAME, for example alice/urlstm-128-smnist"
    if repo_id.count("/") != 1:
        raise UsageError(expected)
    try:
        validate_repo_id(repo_id)
    except HFValidationError:
        raise UsageError(expected) from None
    return repo_id


def check_revision(revision: str) -> str:
    """`revision`, if it can be the name of a branch, tag or commit.

    Raises:
        UsageError: It cannot.
    """
    if not re.fullmatch(r"(?!.*(\.\.|//|@\{))[A-Za-z0-9_][\w./+-]*", revision, flags=re.ASCII) or len(revision) > 200:
        raise UsageError(f"revision {revision!r} is not the name of a branch, tag or commit, for example main")
    return revision


_patience: contextvars.ContextVar[Patience | None] = contextvars.ContextVar("patience", default=None)


@contextlib.contextmanager
def _guarded(patience: Patience) -> Iterator[None]:
    """Guard the requests that this thread sends in the block.

    The client is the process's shared one, made by whatever factory the user set, so it is changed as little
    as can be: `send` of this object is wrapped, once, and looks at a context variable.
    """
    client = get_session()
    send = client.send
    if not hasattr(send, "guards"):

        def guarded_send(request: httpx2.Request, **options: Any) -> httpx2.Response:
            active = _patience.get()
            return send(request, **options) if active is None else _send(send, request, active, options)

        guarded_send.guards = True  # type: ignore[attr-defined]
        setattr(client, "send", guarded_send)  # noqa: B010 - mypy knows that methods are not assigned to
    token = _patience.set(patience)
    try:
        yield
    finally:
        _patience.reset(token)


def _send(
    send: Callable[..., httpx2.Response], request: httpx2.Request, patience: Patience, options: dict[str, Any]
) -> httpx2.Response:
    limits = httpx2.Timeout(patience.silence_seconds, connect=patience.connect_seconds)
    request.extensions = {**request.extensions, "timeout": limits.as_dict()}
    try:
        response = send(request, **options)
    except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
        raise PassingError(str(error) or "no connection in time", unreachable=True) from None
    except httpx2.TimeoutException:
        raise PassingError(f"no answer for {patience.silence_seconds:g} s", silent=True) from None
    except (httpx2.NetworkError, httpx2.RemoteProtocolError):
        raise PassingError("the connection was cut") from None
    status = response.status_code
    if status in (408, 429) or status >= 500:
        response.close()
        raise PassingError(f"the Hub answers {status}", wait_seconds=_asked_wait(response.headers))
    return response


def _asked_wait(headers: httpx2.Headers) -> float | None:
    """The seconds a Retry-After header asks for, in either of its two forms."""
    value = headers.get("Retry-After", "").strip()
    if value.isdigit():
        return float(value)
    moment = email.utils.parsedate_tz(value)
    return max(0.0, email.utils.mktime_tz(moment) - time.time()) if moment else None


def _passing(error: BaseException) -> PassingError | None:
    """The passing fault behind an error; huggingface_hub wraps what fails in an upload."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, PassingError):
            return seen
        seen = seen.__cause__
    return None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence huggingface_hub's own warnings and bars: `attempt` says the same, once and without addresses."""
    hub_logger = logging.getLogger("huggingface_hub")
    level, bars = hub_logger.level, not are_progress_bars_disabled()
    hub_logger.setLevel(logging.ERROR)
    if bars:
        disable_progress_bars()
    try:
        yield
    finally:
        hub_logger.setLevel(level)
        if bars:
            enable_progress_bars()
