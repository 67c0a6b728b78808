"""The documentation: its code runs, its commands and options exist, and its pages are all in the navigation."""

import re
from importlib import import_module
from pathlib import Path

import pytest
import yaml

from tests.conftest import Run
from urzoo.cli import app

ROOT = Path(__file__).parent.parent
PAGES = ROOT / "docs" / "pages"


def pages() -> list[str]:
    return sorted(path.relative_to(PAGES).as_posix() for path in PAGES.rglob("*.md"))


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (PAGES / page).read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", [page for page in pages() if blocks(page, "python")])
def test_the_code_of_a_page_runs_from_top_to_bottom(page: str, tmp_path: Path, run_apart: Run) -> None:
    for name in ("configs", "leaderboard"):
        (tmp_path / name).symlink_to(ROOT / name)
    assert run_apart("\n".join(blocks(page, "python")), tmp_path, HF_HUB_OFFLINE="1")


def commands() -> list[list[str]]:
    lines = [
        line.split("#")[0].split()
        for page in pages()
        for block in blocks(page, "sh")
        for line in block.replace("\\\n", " ").splitlines()
    ]
    return [words[words.index("urzoo") :] for words in lines if "urzoo" in words]


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_commands_and_options_exist(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    names = [words[1], *(words[2:3] if words[1] == "data" else [])]
    app([*names, "--help"], standalone_mode=False)
    described = capsys.readouterr().out
    for option in (word for word in words if word.startswith("--")):
        assert option in described


def test_own_data_become_what_the_harness_reads_as_the_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import datasets
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    for name in ("digits", "reviews", "waves", "pictures/one", "pictures/two"):
        Path(name).mkdir(parents=True)
    for name in ("one", "two"):
        Image.new("L", (28, 28)).save(f"pictures/{name}/picture.png")
    Path("reviews.csv").write_text("text,label\nA dull film,neg\nA lovely film,pos\n")
    Path("waves.jsonl").write_text(
        '{"series": [[0.0, 1.0], [0.5, 1.0]], "label": "up"}\n{"series": [[1.0, 0.0]], "label": "down"}\n'
    )
    shown = "\n".join(blocks("evaluate/task.md", "sh")).replace("\\\n", "")
    for code in re.findall(r'^python -c "(.*)"$', shown, flags=re.MULTILINE):
        exec(code, {})
    of_labels = {"digits": ["one", "two"], "reviews": ["neg", "pos"], "waves": ["down", "up"]}
    for name, classes in of_labels.items():
        app(["data", "digest", name], standalone_mode=False)
        written = Path(capsys.readouterr().out.strip())
        assert yaml.safe_load(written.read_text())["columns"]["label"]["classes"] == classes


def test_the_navigation_names_every_page() -> None:
    navigation = yaml.safe_load((ROOT / "docs" / "mkdocs.yml").read_text("utf-8"))["nav"]
    named = set(re.findall(r"[\w/]+\.md", str(navigation)))
    assert named == set(pages())


@pytest.mark.parametrize("part", sorted((PAGES / "reference").glob("*.md")), ids=lambda path: path.stem)
def test_a_page_of_the_reference_is_of_a_part_that_says_what_is_public(part: Path) -> None:
    assert import_module(f"urzoo.{part.stem}").__all__
