"""Text from outside, made safe for where it is shown: CSV, and JSON inside HTML.

A result file may come from anyone, so nothing in it is trusted. Two lines of defence: the schema and
`refuse_unprintable` turn away what no honest result holds, and the functions below escape the rest for
its place. Markdown is escaped by `urzoo.markdown`, HTML by the template engine.
"""

import json
import unicodedata
from typing import Any

from urzoo.errors import ResultError
from urzoo.recurrence.gates import GATINGS

# Cells that begin like this are run as formulas by spreadsheets; the wide forms count too.
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def refuse_unprintable(where: object, content: Any, key: str = "") -> None:
    """Refuse text that could show as something else than it is, anywhere inside `content`.

    Args:
        where: The file the content comes from, for the message.
        content: What a JSON file may hold.
        key: Where in the file `content` stands, "" for all of it.

    Raises:
        ResultError: A text has control, bidirectional, zero-width, private or unassigned characters or
            line separators; the message names the file, the key and the character.
    """
    if isinstance(content, dict):
        for name, value in content.items():
            inside = f"{key}.{name}" if key else str(name)
            refuse_unprintable(where, str(name), key or "a key")
            refuse_unprintable(where, value, inside)
    elif isinstance(content, list | tuple):
        for position, value in enumerate(content):
            refuse_unprintable(where, value, f"{key}[{position}]")
    elif isinstance(content, str) and not (content.isascii() and content.isprintable()):
        for character in content:
            # C*: control, format (bidirectional overrides, zero width), surrogate, private, unassigned.
            category = unicodedata.category(character)
            if category[0] == "C" or category in ("Zl", "Zp"):
                code = f"U+{ord(character):04X}"
                raise ResultError(f"{where}: key {key} holds the character {code}; expected printable text.")


def csv_cell(value: str | float | None) -> str:
    """A CSV cell that no spreadsheet runs: text that begins like a formula gets a leading apostrophe."""
    if value is None:
        return ""
    if isinstance(value, int | float):
        return str(value)
    # The names of gatings that begin with a hyphen are data that other programs match, and no formula by themselves.
    return f"'{value}" if value.startswith(_FORMULA_STARTS) and value not in GATINGS else value


def script_json(content: Any) -> str:
    """`content` as JSON that may stand inside an HTML script element: nothing in it can end the element."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def count(value: int | None) -> str:
    """A whole number with its thousands apart: 134,922."""
    return "" if value is None else f"{value:,}"


def duration(seconds: float | None) -> str:
    """A duration to two figures in the unit that suits it: "45 s", "12 min", "3.4 h"."""
    if seconds is None:
        return ""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    hours = seconds / 3600
    return f"{hours:.0f} h" if hours >= 10 or hours == int(hours) else f"{hours:.1f} h"


def tidy(value: float) -> float:
    """`value` without the dust that scaling leaves: 0.9833 * 100 is 98.33, not 98.33000000000001."""
    return float(f"{value:.10g}")
