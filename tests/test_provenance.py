"""The commit that a figure comes from."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from urzoo import provenance


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout of its own in the package's place."""
    (tmp_path / "errors.py").write_text("")
    for arguments in (
        ["init", "-q"],
        ["add", "."],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "a"],
    ):
        subprocess.run(["git", "-C", tmp_path, *arguments], check=True)
    monkeypatch.setattr(provenance, "PACKAGE_FOLDER", tmp_path)
    return tmp_path


def commit() -> str | None:
    return provenance.git_commit.__wrapped__()


def test_the_commit_is_told_and_whether_the_files_differ_from_it(checkout: Path) -> None:
    done = subprocess.run(["git", "-C", checkout, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    assert commit() == done.stdout.strip()
    (checkout / "errors.py").write_text("changed")
    assert commit() == f"{done.stdout.strip()}-dirty"


def test_a_hook_of_another_repository_changes_nothing(
    checkout: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = commit()
    monkeypatch.setenv("GIT_DIR", str(tmp_path_factory.mktemp("other")))
    assert known is not None
    assert commit() == known


@pytest.mark.parametrize("asked", ["ls-files", "status"])
@pytest.mark.parametrize("error", [subprocess.TimeoutExpired("git", 20), subprocess.CalledProcessError(128, "git")])
def test_where_git_does_not_tell_nothing_is_known(
    checkout: Path, asked: str, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = subprocess.run

    def slow(command: list[str], **options: Any) -> Any:
        if asked in command:
            raise error
        return run(command, **options)

    monkeypatch.setattr(subprocess, "run", slow)
    assert commit() is None
