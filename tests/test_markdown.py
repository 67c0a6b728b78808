import html
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from urzoo.markdown import markdown, markdown_code

HOSTILE = [
    "<script>alert(1)</script>",
    "a | b",
    "[click](javascript:alert(1))",
    "![x](http://evil/x.png)",
    "`code`",
    "**bold** _it_ ~~no~~",
    "www.evil.example WWW.evil.example http://evil.example",
    "@someone #12 :smile:",
    "</script><img src=x onerror=alert(1)>",
    "line\nbreak",
    "back\\slash",
    "$x^2$ ${{7*7}} {% raw %}",
    "- item",
    "1. one",
    "# Owned",
    "&lt;&#60;",
]
PIECES = [*HOSTILE, "---", "\n\n", "```", "|", "<!--", "**", "_", "~~", "> ", "    ", "\t", "[^1]", "[x]: http://e.org",
          "===", "\r\n", "\x00", "\x1b[2J", "\u202e", "\u2028", "\x85", "\ufeff", "é", "日本"]  # fmt: skip
hostile = st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=5)), min_size=1, max_size=8).map("".join)
READER = MarkdownIt("commonmark", {"html": True}).enable("table").enable("strikethrough")


@pytest.mark.parametrize("text", HOSTILE)
def test_text_holds_nothing_that_does_something(text: str):
    escaped = markdown(text)
    for character in "<>|[]`*_~@\\\n$^{}:":
        assert character not in escaped
    assert not re.search(r"(?i)www\.|^\s*([-+=]|\d+[.)] )", escaped)
    assert html.unescape(escaped) == " ".join(text.split())


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("a|b", "a&#124;b"),
        ("1. one", "1&#46; one"),
        ("0.1.0", "0.1.0"),
        ("- item", "&#45; item"),
        ("two\nlines", "two lines"),
        ("<b>", "&#60;b&#62;"),
        ("WWW.example.org", "WWW&#46;example.org"),
    ],
)
def test_text_is_escaped_no_more_than_it_must_be(value: str, shown: str):
    assert markdown(value) == shown


@settings(max_examples=200, deadline=None)
@given(value=hostile)
def test_text_and_code_render_as_exactly_themselves_in_a_table(value: str):
    expected = " ".join(
        re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]", " ", value).split()
    )
    tokens = READER.parse(f"| a | b | c |\n|---|---|---|\n| x {markdown(value)} | {markdown_code(value)} | y |\n")
    text, code, last = [token for token in tokens if token.type == "inline"][3:]
    assert last.content == "y"
    assert all(child.type in ("text", "text_special") for child in text.children or ())
    assert "".join(child.content for child in text.children or ()) == f"x {expected}".rstrip()
    kinds = {child.type for child in code.children or ()}
    assert kinds <= {"code_inline"} or kinds <= {"html_inline", "text", "text_special"}
    shown = "".join(child.content for child in code.children or () if child.type != "html_inline")
    assert shown == expected


def test_code_with_backticks_or_bars_cannot_end_itself():
    assert markdown_code("plain") == "`plain`"
    assert markdown_code("a`|<b>") == "<code>a&#96;&#124;&#60;b&#62;</code>"
    assert markdown_code("") == ""
