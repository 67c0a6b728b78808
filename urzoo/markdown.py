"""Text from outside as Markdown that shows exactly it: the one escaper, for model cards, boards and reports."""

import re

# Brackets cover links and images, ":" addresses and emoji, "@" calls people; the last ones begin lists and headings.
_SPECIAL = re.compile(r"[\\`*_{}\[\]<>#|~&:@^$]|^[-+=]")
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]")


def markdown(value: object) -> str:
    """`value` in one line: no emphasis, link, mention, HTML, list or table cell begins inside."""
    escaped = _SPECIAL.sub(lambda match: f"&#{ord(match[0])};", _line(value))
    # A bare address becomes a link without any special character.
    escaped = re.sub(r"(?i)www\.", lambda match: f"{match[0][:3]}&#46;", escaped)
    # At the start of a line, a number with a full stop or bracket begins a list.
    return re.sub(r"^(\d+)([.)])(?=\s|$)", lambda match: f"{match[1]}&#{ord(match[2])};", escaped)


def markdown_code(value: object) -> str:
    """`value` as inline code in one line, also within a table cell."""
    line = _line(value)
    if re.search(r"[`|\\]", line):
        return f"<code>{markdown(line)}</code>"
    return f"`{line}`" if line else ""


def printable(text: str) -> str:
    """`text` with a space for each control, bidirectional or zero-width character but tabs and ends of lines."""
    return _UNPRINTABLE.sub(" ", text)


def _line(value: object) -> str:
    return " ".join(printable(str(value)).split())
