"""The README's code runs, and its commands exist."""

import re
from pathlib import Path

import pytest

from tests.conftest import Run
from urzoo.cli import app

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")


def _blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("code", _blocks("python"))
def test_python_blocks_run(code: str, run_apart: Run) -> None:
    assert run_apart(code, ROOT)


def test_there_is_python_to_run() -> None:
    assert _blocks("python")


def _commands() -> list[list[str]]:
    lines = [line.split("#")[0].split() for block in _blocks("sh") for line in block.splitlines()]
    return [words for words in lines if words and words[0] == "urzoo"]


@pytest.mark.parametrize("words", _commands(), ids=" ".join)
def test_commands_and_options_exist(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    app([words[1], "--help"], standalone_mode=False)
    described = capsys.readouterr().out
    for option in (word for word in words if word.startswith("--")):
        assert option in described


def test_scripts_exist() -> None:
    for block in _blocks("sh"):
        for script in re.findall(r"^(scripts/\w+)", block, flags=re.MULTILINE):
            assert (ROOT / script).is_file()


def test_relative_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", README):
        assert (ROOT / target).exists(), target
