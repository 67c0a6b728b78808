"""What the Hub's refusals become: one line that says what to do."""

from pathlib import Path

import httpx2
import pytest
from huggingface_hub import constants
from huggingface_hub.utils import hf_raise_for_status

from urzoo.errors import UsageError
from urzoo.hub.connection import Connection, HubError, MissingError, RefusedError

from .conftest import TOKEN

WITHOUT = "without a token (`hf auth login`, or set HF_TOKEN)"


def refusal(status: int, *, token: str, code: str = "", message: str = "") -> HubError:
    """What an answer of the real Hub, whose address huggingface_hub looks at, becomes."""

    def step() -> None:
        request = httpx2.Request("GET", "https://huggingface.co/api/models/alice/m/revision/main")
        headers = {"X-Error-Code": code, "X-Error-Message": message}
        hf_raise_for_status(httpx2.Response(status, headers=headers, request=request))

    with pytest.raises(HubError) as raised:
        Connection(token=token).attempt("looking up alice/m", step)
    return raised.value


@pytest.mark.parametrize("message", ["Invalid credentials in Authorization header", 'User Access Token "a" is expired'])
def test_a_token_that_is_refused_is_not_taken_for_a_repository_that_is_not_there(message: str) -> None:
    error = refusal(401, token=TOKEN, message=message)
    assert isinstance(error, RefusedError)
    assert "the Hub refuses the token (401); log in again" in str(error)


def test_a_repository_that_is_not_there_or_not_shown_is_missing() -> None:
    for status, token, who in ((404, TOKEN, "with this token"), (401, "", WITHOUT)):
        error = refusal(status, token=token, code="RepoNotFound", message="Repository not found")
        assert isinstance(error, MissingError)
        assert f"shows no such repository {who}; check OWNER/NAME" in str(error)


def test_a_gated_repository_is_told_by_whether_there_is_a_token() -> None:
    for status, token, who in ((403, TOKEN, "with this token"), (401, "", WITHOUT)):
        error = refusal(status, token=token, code="GatedRepo", message="Access to model alice/m is restricted")
        assert isinstance(error, RefusedError)
        assert f"is gated, and not given {who}; ask for it on https://" in str(error)


@pytest.mark.parametrize(
    "error", [ImportError("no 'socksio'"), ValueError("Unknown scheme"), OSError(2, "No such file")]
)
def test_a_client_that_the_environment_spoils_is_told_in_one_line(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoilt() -> None:
        raise error

    monkeypatch.setattr("urzoo.hub.guard.get_session", spoilt)
    with pytest.raises(HubError, match="looking up alice/m: a proxy or certificates set in the environment cannot be"):
        Connection(token="").attempt("looking up alice/m", lambda: None)


def test_a_token_file_that_is_no_text_is_named() -> None:
    place = Path(constants.HF_TOKEN_PATH)
    place.parent.mkdir(parents=True)
    place.write_bytes(TOKEN.encode("utf-16"))
    with pytest.raises(UsageError, match=r"hf-home/token is no text; log in again"):
        Connection()
