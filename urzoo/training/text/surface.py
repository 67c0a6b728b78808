"""WikiText's surface form, for text that comes near it, and the ordinary spelling that it is rewritten to.

The rewritten Wikipedia of 2015 has ` ' s`, `@ , @` and `. . .` where WikiText has ` 's`, `@,@` and `...`, and no blank
line before a heading. A model that learnt the one form is needlessly surprised by the other. Rare words become
`<unk>` here too: a matter of one pass over the words. Ordinary spelling is what a person types: no blank before a
comma, none around a hyphen; headings keep their marks (`== History ==`), which tell a page's parts.
"""

import re
from collections import Counter
from collections.abc import Sequence

# Every replacement works on a whole row, blanks at both ends included.
_REPLACEMENTS = (
    (re.compile(r" ' (s|t|re|ve|m|ll|d)(?= )"), r" '\1"),
    (re.compile(r" @ ([,.]) @ "), r" @\1@ "),
    (re.compile(r" \. \. \. "), " ... "),
)
_HEADING = re.compile(r"^ = = .* = = \n$")
UNKNOWN = "<unk>"
# What the ordinary spelling undoes, in this order. A line end is no blank here: paragraphs stay.
_ORDINARY = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"[ \t]*<br\s*/?>[ \t]*", "\n"),
        (r" @([-,.])@ ", r"\1"),
        (r"= (?==)", "="),
        (r"(?<=\w) (n't|'(?:s|t|re|ve|m|ll|d))\b", r"\1"),
        (r"(?<=s) '(?= )", "'"),
        (r"([(\[{]) +", r"\1"),
        (r" +([)\]}])", r"\1"),
        (r" +(\.\.\.|[,;:.!?%])(?=[\s)\]\"']|$)", r"\1"),
        (r"\A | +(?=\n)", ""),
        (r"\n{3,}", "\n\n"),
    )
)
_QUOTED = re.compile(r'" *([^"\n]*?) *"')


def in_wikitext_form(rows: Sequence[str]) -> list[str]:
    """The rows, which are lines of WikiText's files, with a blank row before each heading that has none."""
    changed: list[str] = []
    for row in rows:
        text = row
        if "'" in text or "@ " in text or " . ." in text:
            for pattern, replacement in _REPLACEMENTS:
                text = pattern.sub(replacement, text)
        if text.startswith(" = = ") and _HEADING.match(text) and changed and changed[-1].strip():
            changed.append("")
        changed.append(text)
    return changed


def without_rare_words(rows: Sequence[str], below: int) -> list[str]:
    """The rows with `<unk>` for each word, between blanks, that all rows together have fewer than `below` times."""
    counts: Counter[str] = Counter()
    for row in rows:
        counts.update(row.split(" "))
    rare = {word for word, count in counts.items() if count < below and word.strip()}
    return [" ".join([UNKNOWN if word in rare else word for word in row.split(" ")]) for row in rows]


def in_ordinary_spelling(text: str) -> str:
    """A line or document as it would be typed: WikiText's without its tokenisation, a web page's without `<br />`.

    Blanks inside quotation marks go where the marks of the text are even in number.
    """
    for pattern, replacement in _ORDINARY:
        text = pattern.sub(replacement, text)
    return _QUOTED.sub(r'"\1"', text) if text.count('"') % 2 == 0 else text
