"""A fresh test Hub for each test, and clients that never see this machine's own caches or tokens."""

import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from urzoo.cli import main

from .server import HubServer

TOKEN = "hf_TestTokenOfAlice0123456789abcdef"
OTHER = "hf_TestTokenOfMallory0123456789abcd"
READER = "hf_TestTokenThatOnlyReads012345678"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """huggingface_hub itself uploads with an argument its HTTP library calls deprecated."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning"))


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with HubServer() as server:
        server.add_user("alice", token=TOKEN, orgs=("zoo",))
        server.add_user("mallory", token=OTHER)
        server.add_user("reader", token=READER, orgs=("zoo",), can_write=False)
        yield server


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Caches and the token file of huggingface_hub in this test's folder; no token in the environment."""
    home = tmp_path / "hf-home"
    for name, path in {
        "HF_HOME": home,
        "HF_HUB_CACHE": home / "hub",
        "HF_TOKEN_PATH": home / "token",
        "HF_STORED_TOKENS_PATH": home / "stored_tokens",
    }.items():
        monkeypatch.setattr(constants, name, str(path))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)


Run = Callable[..., subprocess.CompletedProcess[str]]


def client_environment(hub: HubServer, home: Path, *, token: str | None = TOKEN, **extra: str) -> dict[str, str]:
    """The environment of a client process that knows no Hub but the test's."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING", "TRANSFORMERS"))}
    if token is not None:
        kept["HF_TOKEN"] = token
    quiet = {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    return {**kept, **quiet, "HF_ENDPOINT": hub.endpoint, "HF_HOME": str(home), **extra}


@pytest.fixture
def client(hub: HubServer, tmp_path: Path) -> Run:
    """Run Python code, or a command, in a process of its own against the test Hub."""

    def run(*command: str, code: str | None = None, fails: bool = False, token: str | None = TOKEN, **extra: str):
        if code is not None:
            command = (sys.executable, "-c", code, *command)
        done = subprocess.run(
            command,
            env=client_environment(hub, tmp_path / "client-home", token=token, **extra),
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=400,  # generous, for a machine that does other work as well
        )
        assert (done.returncode != 0) == fails, done.stdout + done.stderr
        return done

    return run


@pytest.fixture
def on_the_test_hub(hub: HubServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    use_endpoint(monkeypatch, hub.endpoint)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr("sys.stdin", io.StringIO())


def use_endpoint(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    """As HF_ENDPOINT does, which huggingface_hub reads when it is imported."""
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")


Say = Callable[..., tuple[str, str]]


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Say:
    """Run a command; its standard output and error, after a look at the exit code."""

    def run(*arguments: object, code: int | None = 0) -> tuple[str, str]:
        capsys.readouterr()
        ended = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        assert code is None or ended == code, out + err
        if code:
            assert err.count("error: ") == 1
            assert err.splitlines()[-1].startswith("error: ")
        return out, err

    return run
