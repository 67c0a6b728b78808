"""The page as text: what it says, what it allows, and that nothing from a result file can become markup."""

import base64
import csv
import hashlib
import itertools
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from urzoo.leaderboard.build import build
from urzoo.leaderboard.tables import GENERATED

from .conftest import BuiltBoard

NOTE = f"{GENERATED}\n"
VOID = {"meta", "link", "input"}


class Outline(HTMLParser):
    """Elements with their attributes, and the text between them."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.inside: list[str] = []
        self.unbalanced: list[str] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.inside.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self.inside or self.inside.pop() != tag:
            self.unbalanced.append(tag)

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.texts.setdefault(self.inside[-1], []).append(data)


@pytest.fixture
def page(pristine: BuiltBoard) -> str:
    return (pristine.out / "index.html").read_text(encoding="utf-8")


@pytest.fixture
def outline(page: str) -> Outline:
    return Outline(page)


def test_every_element_is_closed(outline: Outline):
    assert not outline.unbalanced
    assert not outline.inside


def test_nothing_is_loaded_from_anywhere(outline: Outline):
    for tag, attributes in outline.elements:
        assert tag not in {"img", "iframe", "object", "embed", "video", "audio", "base"}
        assert not attributes.get("src")
        if tag == "link":
            assert attributes["href"] == "data:,"
        for name in attributes:
            assert not name.startswith("on"), f"{tag} has the handler {name}"
            assert name != "style"
    assert "@import" not in "".join(outline.texts["style"])
    assert "url(" not in "".join(outline.texts["style"])


def test_the_policy_allows_the_pages_own_script_and_style_alone(page: str):
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)[1].replace("&#39;", "'")
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    (style,) = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    for content in (style, script):
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy


def test_links_within_the_page_lead_somewhere(outline: Outline):
    ids = [attributes["id"] for _, attributes in outline.elements if attributes.get("id")]
    assert len(ids) == len(set(ids))
    for tag, attributes in outline.elements:
        target = attributes.get("href") or ""
        if tag == "a" and target.startswith("#"):
            assert target[1:] in ids, target
        for reference in ("aria-labelledby", "aria-controls", "for"):
            for name in (attributes.get(reference) or "").split():
                assert name in ids, name


def test_the_files_it_links_to_are_beside_it(pristine: BuiltBoard, outline: Outline):
    for tag, attributes in outline.elements:
        target = attributes.get("href") or ""
        if tag == "a" and not target.startswith(("#", "https://arxiv.org/abs/")):
            assert (pristine.out / target).is_file(), target


def test_tables_and_controls_have_names(outline: Outline):
    tables = sum(tag == "table" for tag, _ in outline.elements)
    assert sum(tag == "caption" for tag, _ in outline.elements) == tables > 5
    assert all(attributes.get("scope") in ("row", "col") for tag, attributes in outline.elements if tag == "th")
    for tag, attributes in outline.elements:
        if tag == "svg":
            assert attributes["role"] == "img"
            assert attributes["aria-labelledby"]
    (language,) = (attributes["lang"] for tag, attributes in outline.elements if tag == "html")
    assert language == "en"


def test_headings_leave_out_no_level(outline: Outline):
    levels = [int(tag[1]) for tag, _ in outline.elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


def test_each_measured_row_has_its_provenance_in_the_page(page: str, outline: Outline):
    record = json.loads(re.search(r'id="provenance">(.*?)</script>', page, re.DOTALL)[1])
    rows = [a["id"] for tag, a in outline.elements if tag == "tr" and a.get("data-kind") not in (None, "published")]
    assert set(rows) == set(record)
    for row in record.values():
        assert row["command"].startswith("urzoo eval ")
        assert row["result"]["model"]["weights_sha256"]


def test_the_tables_are_whole_without_the_script(page: str):
    static = re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    for text in ("urlstm-128-smnist", "98.62", "98.42 to 98.80", "102,154", "1.5 h", "2026-11-20", "99.28"):
        assert text in static


# What the schema lets through as an architecture, a command or a device, and what would do harm if it were markup.
HOSTILE = (
    "<script>document.title='owned'</script>",
    "</script><script>document.title='owned'</script>",
    "<img src=x onerror=\"document.title='owned'\">",
    "'\"><svg onload=document.title='owned'>",
    "{{ 7 * 7 }} {% raw %}",
    "<!-- <script>",
    "]]></title></svg><script>alert(1)</script>",
    "=HYPERLINK(\"http://evil.example\",\"x\")",
    "| a | [b](javascript:alert(1)) | ![c](http://evil.example/c.png) |",
    "javascript:alert(1)",
)  # fmt: skip


@pytest.fixture
def hostile(put: Callable[..., Path], results: Path) -> Path:
    """A board on which every free text of the result files is hostile."""
    for number, text in enumerate(HOSTILE):
        free = ("model__architecture", "command", "device", "hardware", "backend", "data__subset", "model__revision")
        training = {"model__training__hardware": text}
        put(f"model-{number}", "smnist", 0.98, **dict.fromkeys(free, text), **training)
        nothing = dict.fromkeys(("model__cell", "model__gate", "model__hidden_size", "model__training"))
        put(f"baseline-{number}", "smnist", 0.97, **dict.fromkeys(free, text), **nothing)
    build(results, results.parent)
    return results.parent


def test_hostile_text_adds_no_element_to_the_page(hostile: Path, put: Callable[..., Path], results: Path):
    outline = Outline((hostile / "index.html").read_text())
    for number in range(len(HOSTILE)):
        put(f"model-{number}", "smnist", 0.98, data__subset="plain")
        nothing = dict.fromkeys(("model__cell", "model__gate", "model__hidden_size", "model__training"))
        put(f"baseline-{number}", "smnist", 0.97, model__architecture="Plain", data__subset="plain", **nothing)
    build(results, results.parent)
    harmless = Outline((hostile / "index.html").read_text())
    assert [tag for tag, _ in outline.elements] == [tag for tag, _ in harmless.elements]
    assert [set(attributes) for _, attributes in outline.elements] == [set(a) for _, a in harmless.elements]


def test_hostile_text_is_shown_as_it_is(hostile: Path):
    outline = Outline((hostile / "index.html").read_text())
    shown = outline.texts["span"]
    assert all(text in shown for text in HOSTILE)


def test_hostile_text_breaks_no_table_in_markdown(hostile: Path):
    text = (hostile / "README.md").read_text()
    tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(text)
    parts = [part for token in tokens for part in (token, *(token.children or ()))]
    assert {part.content for part in parts if part.type.startswith("html_")} <= {NOTE, "<code>", "</code>"}
    links = {part.attrs["href"] for part in parts if part.type == "link_open"}
    assert all(link.startswith("https://arxiv.org/abs/") or "/" not in link for link in links)
    assert "](javascript" not in text
    assert "](http://evil" not in text
    width = None
    for line in text.splitlines():
        width = None if not line.startswith("|") else width or line.count("|")
        assert not line.startswith("|") or line.count("|") == width


def test_hostile_text_is_no_formula_in_csv(hostile: Path):
    with (hostile / "leaderboard.csv").open(newline="") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert '\'=HYPERLINK("http://evil.example","x")' in cells
    assert not any(cell.startswith(("=", "+", "@")) for cell in cells)
