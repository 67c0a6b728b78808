"""WikiText's lines, pages and words, as the figures that are published for it count them."""

import re
from collections.abc import Sequence

# " = Robert Boulter = \n" begins a page; " = = Career = = \n" is a heading inside one.
_TITLE = re.compile(r"^ = [^=].*? = \n$")


def lines(rows: Sequence[str]) -> list[str]:
    """The lines of the original file; the Hub's rows hold nothing where that has a blank line.

    Rows of a user's own mostly lack the line ends, which are words that a figure for each word divides by.
    """
    return [row if row.endswith("\n") else f"{row or ' '}\n" for row in rows]


def pages(rows: Sequence[str]) -> list[str]:
    """The pages, each beginning with its title; a title follows a blank line and is followed by one."""
    return ["".join(page) for page in article_lines(rows)]


def article_lines(rows: Sequence[str]) -> list[list[str]]:
    """The lines of each page; what stands before the first title belongs to none."""
    found = lines(rows)
    starts = [
        number
        for number, line in enumerate(found)
        if _TITLE.match(line) and _blank(found, number - 1) and _blank(found, number + 1)
    ]
    ends = [*starts[1:], len(found)][: len(starts)]
    return [found[start:end] for start, end in zip(starts, ends, strict=True)]


def words_of_page(page: str) -> int:
    """The words of a page as lm-eval counts them: the blanks at its ends make an empty word each."""
    return len(re.split(r"\s+", page))


def detokenised(page: str) -> str:
    """A page as it would be written without WikiText's tokenisation.

    The replacements, their order and their oddities are those of lm-eval's task wikitext 2.0, whose figures this
    makes comparable.
    """
    text = page.replace("s '", "s'")
    text = re.sub(r"/' [0-9]/", r"/'[0-9]/", text)
    for written, meant in ((" @-@ ", "-"), (" @,@ ", ","), (" @.@ ", ".")):
        text = text.replace(written, meant)
    for mark in ":;.!?,":
        text = text.replace(f" {mark} ", f"{mark} ")
    text = re.sub(r"\(\s*([^\)]*?)\s*\)", r"(\1)", text)
    text = re.sub(r"\[\s*([^\]]*?)\s*\]", r"[\1]", text)
    text = re.sub(r"{\s*([^}]*?)\s*}", r"{\1}", text)
    text = re.sub(r"\"\s*([^\"]*?)\s*\"", r'"\1"', text)
    text = re.sub(r"'\s*([^']*?)\s*'", r"'\1'", text)
    for written, meant in (
        ("= = = =", "===="),
        ("= = =", "==="),
        ("= =", "=="),
        (" " + chr(176) + " ", chr(176)),
        (" \n", "\n"),
        ("\n ", "\n"),
        (" N ", " 1 "),
        (" 's", "'s"),
    ):
        text = text.replace(written, meant)
    return text


def _blank(found: list[str], number: int) -> bool:
    return not 0 <= number < len(found) or not found[number].strip()
