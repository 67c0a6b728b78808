import json

import pytest

from urzoo.errors import ResultError
from urzoo.leaderboard.text import csv_cell, duration, refuse_unprintable, script_json

HOSTILE = [
    "<script>alert(1)</script>",
    "a | b",
    "[click](javascript:alert(1))",
    "![x](http://evil/x.png)",
    "`code`",
    "**bold** _it_ ~~no~~",
    "www.evil.example http://evil.example",
    "@someone #12",
    "</script><img src=x onerror=alert(1)>",
    "line\nbreak",
    "back\\slash",
    "$x^2$",
]


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1+cmd|' /C calc'!A0", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "\uff1d1"])
def test_csv_text_is_never_a_formula(text: str):
    assert csv_cell(text) == "'" + text


@pytest.mark.parametrize("gate", ["--", "-R", "-M", "UR"])
def test_the_names_of_gatings_stay_as_they_are_in_csv(gate: str):
    assert csv_cell(gate) == gate


def test_csv_numbers_read_back_as_the_same():
    assert csv_cell(None) == ""
    assert csv_cell(-3) == "-3"
    assert float(csv_cell(0.1 + 0.2)) == 0.1 + 0.2


@pytest.mark.parametrize("text", [*HOSTILE, "</SCRIPT >", "<!--", "]]>", "\u2028", "&lt;"])
def test_json_in_a_script_element_cannot_end_it(text: str):
    embedded = script_json({"key": text})
    assert not set("<>&\u2028\u2029") & set(embedded)
    assert json.loads(embedded) == {"key": text}


@pytest.mark.parametrize(
    "character",
    ["\x00", "\x07", "\x1b", "\x7f", "\x85", "\u200b", "\u200e", "\u202e", "\u2066", "\u2028", "\ufeff", "\ue000"],
)
def test_unprintable_characters_are_refused_wherever_they_are(character: str):
    with pytest.raises(ResultError, match=rf"file.json: key a\[0\]\.b.*U\+{ord(character):04X}"):
        refuse_unprintable("file.json", {"a": [{"b": f"x{character}y"}]})
    with pytest.raises(ResultError):
        refuse_unprintable("file.json", {f"x{character}": 1})


@pytest.mark.parametrize("text", ["plain", "Ré, Größe, 模型, naïve – “quoted”", ""])
def test_ordinary_text_in_any_language_passes(text: str):
    refuse_unprintable("file.json", {"a": [text, 1, 2.5, None, True]})


@pytest.mark.parametrize(
    ("seconds", "shown"), [(None, ""), (45, "45 s"), (600, "10 min"), (3600, "1 h"), (5400, "1.5 h"), (90_000, "25 h")]
)
def test_durations_are_short(seconds, shown: str):
    assert duration(seconds) == shown
