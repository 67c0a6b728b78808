"""Talking to the Hub so that every request ends in bounded time and fails in one known way.

huggingface_hub sends the requests, under a guard (`guard.py`) that bounds them and lets a passing fault out as
`PassingError`. So there is one place that waits and repeats, honours Retry-After and gives up: `Connection.attempt`.
It goes on as long as each attempt gets further than the one before, and gives up when none does.

No message holds a token: what others wrote is cleaned of it, and the chain of causes, which holds the
request with its headers, is cut.
"""

import contextlib
import logging
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TypeVar

import httpx2
from huggingface_hub import HfApi, constants, get_token
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

from urzoo.errors import UsageError
from urzoo.hub.guard import Budget, Guard, HubError, PassingError, Patience, guarded

__all__ = [
    "Connection",
    "GaveUpError",
    "HubError",
    "MissingError",
    "MissingRevisionError",
    "Patience",
    "RefusedError",
    "StaleParentError",
    "UnreachableError",
]

T = TypeVar("T")

logger = logging.getLogger(__name__)

_RAISED = (
    *(OSError, RuntimeError, httpx2.HTTPError, httpx2.InvalidURL),  # by huggingface_hub
    *(ValueError, KeyError, TypeError, AttributeError),  # by it too, where an answer is not the JSON it expects
)
# The first request may take this long, and twice at most, before the Hub counts as unreachable.
_FIRST_SILENCE_SECONDS = 10.0


class UnreachableError(HubError):
    """No connection to the Hub: offline mode, no network, or no server at the endpoint."""


class GaveUpError(HubError):
    """The Hub was reached and then failed, again and again, until patience ended."""


class RefusedError(HubError):
    """The Hub does not allow it to this token, and will not when asked again."""


class MissingError(HubError):
    """The repository, revision or file does not exist, or may not be seen with this token."""


class MissingRevisionError(MissingError):
    """The repository exists; the branch, tag or commit does not."""


class StaleParentError(HubError):
    """Somebody else committed to the branch first; nothing was lost, and nothing of this push was committed."""


class Connection:
    """One endpoint, one token, and the patience to use them with.

    Args:
        endpoint: The Hub's address; that of huggingface_hub (HF_ENDPOINT) when omitted.
        token: An access token; the one huggingface_hub finds (HF_TOKEN, `hf auth login`) when omitted.
        patience: When to repeat and when to give up.

    Raises:
        UsageError: `endpoint` is no http(s) address, or the token holds what no token holds.
    """

    def __init__(self, endpoint: str | None = None, token: str | None = None, patience: Patience | None = None) -> None:
        self.endpoint = (endpoint or constants.ENDPOINT).rstrip("/")
        if re.match(r"https?://[^/]*@", self.endpoint):
            raise UsageError(
                "the endpoint (HF_ENDPOINT) holds a user name or password before '@'; give the address alone, and the "
                "token in HF_TOKEN"
            )
        if not re.fullmatch(r"https?://[^\s/]+(/\S*)?", self.endpoint):
            shown = re.sub(r"hf_\w{8,}", "<token>", self.endpoint)
            raise UsageError(f"endpoint {shown!r} is not an address like https://huggingface.co")
        try:
            found = get_token() if token is None else token.strip()
        except UnicodeDecodeError:
            raise UsageError(f"{constants.HF_TOKEN_PATH} is no text; log in again with `hf auth login`") from None
        if found and not re.fullmatch(r"[\x21-\x7e]+", found):
            raise UsageError("the token holds blanks or other characters that no token has; paste it again")
        self.token = found or None
        self.patience = patience or Patience()
        self.api = HfApi(endpoint=self.endpoint, token=self.token or False, library_name="urzoo")
        self._reached = False

    def attempt(
        self,
        what: str,
        step: Callable[[], T],
        *,
        settled: Callable[[], T | None] | None = None,
        progress: Callable[[], int] | None = None,
    ) -> T:
        """The result of `step`, repeated while the faults are passing ones and patience lasts.

        Args:
            what: The step in words that complete "while ...", for the messages.
            step: Sends requests through huggingface_hub; must be safe to repeat, unless `settled` is given.
            settled: Asked before each repetition whether the step was carried out though its answer was lost;
                gives its result if so.
            progress: How far the step has got; one that got further is repeated at once, as often as it does.

        Raises:
            UnreachableError: No connection, or twice no answer, at the first step: that working offline is quick.
            GaveUpError: The faults did not pass.
            HubError: The Hub refused the step for good.
        """
        patience = self.patience
        wait_seconds, failures, got = patience.first_wait_seconds, 0, progress() if progress else 0
        budget = Budget(patience)
        while True:
            try:
                if failures and settled is not None and (result := self._guard(settled, budget)) is not None:
                    return result
                result = self._guard(step, budget)
            except HubError as error:
                raise type(error)(f"while {what}: {self.clean(str(error))}") from None
            except _RAISED as error:
                fault = _passing(error)
                if fault is None:
                    raise self._refusal(error, what) from None
            else:
                self._reached = True
                return result
            reason = self.clean(str(fault))
            before, got = got, progress() if progress else 0
            if got > before:
                wait_seconds, failures = patience.first_wait_seconds, 0
                self._reached = True
            failures += 1
            if not self._reached and (fault.unreachable or (fault.silent and failures == 2)):
                raise UnreachableError(f"the Hub at {self.endpoint} cannot be reached ({reason})") from None
            self._reached = self._reached or not fault.silent
            pause_seconds = 0.0 if got > before else wait_seconds
            pause_seconds = max(pause_seconds, fault.wait_seconds or 0.0)
            if pause_seconds > patience.longest_wait_seconds:
                message = f"while {what}: {reason}, asking to wait {pause_seconds:.0f} s; try again after that"
                raise GaveUpError(message) from None
            if failures == patience.attempts:
                raise GaveUpError(f"while {what}: {reason}, {failures} times; try again later") from None
            if pause_seconds >= budget.left_seconds:
                raise GaveUpError(
                    f"while {what}: {reason}; no progress for {patience.stalled_seconds:g} s; try again later"
                ) from None
            logger.warning("while %s: %s; trying again in %.1f s", what, reason, pause_seconds)
            time.sleep(pause_seconds)
            if got <= before:
                wait_seconds = min(2 * wait_seconds, patience.longest_wait_seconds)

    def clean(self, text: str) -> str:
        """`text` in one line, without the token, without the queries of addresses (they may be signed)."""
        if self.token:
            text = text.replace(self.token, "<token>")
        text = re.sub(r"hf_[A-Za-z0-9]{8,}", "<token>", text)
        text = re.sub(r"(https?://[^\s?]+)\?\S*", r"\1", text)
        text = " ".join("".join(char if char.isprintable() else " " for char in text).split())
        return text if len(text) <= 300 else f"{text[:297]}..."

    def _guard(self, step: Callable[[], T], budget: Budget) -> T:
        patience = self.patience
        if not self._reached:
            patience = replace(patience, silence_seconds=min(patience.silence_seconds, _FIRST_SILENCE_SECONDS))
        with guarded(Guard(self.endpoint, self.token, patience, budget)), _quiet():
            return step()

    def _refusal(self, error: BaseException, what: str) -> HubError:
        """The one-line error for what huggingface_hub raised, or, where it wraps what it was told, for that."""
        error = next((one for one in _causes(error) if isinstance(one, HfHubHTTPError)), error)
        if isinstance(error, OfflineModeIsEnabled):
            return UnreachableError("offline mode is on (HF_HUB_OFFLINE), so the Hub is not asked")
        who = "with this token" if self.token else "without a token (`hf auth login`, or set HF_TOKEN)"
        status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
        if isinstance(error, GatedRepoError):
            return RefusedError(
                f"while {what}: access to the repository is gated, and not given {who}; ask for it on {self.endpoint}"
            )
        if status == 401 and self.token:  # before what huggingface_hub makes of it: a repository that is not there
            return RefusedError(f"while {what}: the Hub refuses the token (401); log in again with `hf auth login`")
        if isinstance(error, RepositoryNotFoundError):
            return MissingError(f"while {what}: {self.endpoint} shows no such repository {who}; check OWNER/NAME")
        if isinstance(error, RevisionNotFoundError):
            return MissingRevisionError(f"while {what}: the repository has no such branch, tag or commit")
        if isinstance(error, EntryNotFoundError):
            return MissingError(f"while {what}: the repository has no such file")
        if status in (401, 403):
            advice = "; check the token's permissions" if self.token else ""
            return RefusedError(f"while {what}: the Hub does not allow this {who} ({status}){advice}")
        if status == 412:
            return StaleParentError(f"while {what}: the branch has a newer commit (412)")
        reason = self.clean(str(error)) or type(error).__name__
        if isinstance(error, ValueError | KeyError | TypeError | AttributeError) and status is None:
            return HubError(f"while {what}: {self.endpoint} answers what no Hub answers ({reason})")
        return HubError(f"while {what}: {reason}")


def _passing(error: BaseException) -> PassingError | None:
    """The passing fault behind an error; huggingface_hub wraps what fails in an upload."""
    return next((one for one in _causes(error) if isinstance(one, PassingError)), None)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


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
