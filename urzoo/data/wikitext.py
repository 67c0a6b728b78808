"""WikiText's lines, pages and words, as the figures that are published for it count them."""

import re
from collections.abc import Sequence

# " = Robert Boulter = \n" begins a page; " = = Career = = \n" is a heading inside one.
_TITLE = re.compile(r"^ = [^=].*? = \n$")
_PAGE_BEGINS = re.compile(r"= (?!=).*(?<!=) =")


def lines(rows: Sequence[str]) -> list[str]:
    """The lines of the original file; the Hub's rows hold nothing where that has a blank line.

    Rows of a user's own mostly lack the line ends, which are words that a figure for each word divides by.
    """
    return [row if row.endswith("\n") else f"{row or ' '}\n" for row in rows]


def pages(rows: Sequence[str]) -> list[str]:
    """The pages as lm-eval's task wikitext 2.0 cuts them; none where there is no title.

    Any line that looks like a title begins one, also in the midst of an article: in the test text there are two more
    than articles. The last line end before a title belongs to no page.
    """
    found: list[list[str]] = [[]]
    for line in "".join(lines(rows)).split("\n"):
        if _PAGE_BEGINS.fullmatch(line.strip()):
            found.append([])
        found[-1].append(line)
    texts = ["\n".join(page) for page in found]
    return [text for text in texts if text.strip()] if len(texts) > 1 else []


def article_lines(rows: Sequence[str]) -> list[list[str]]:
    """The lines of each article, from its title, which stands between blank lines; those before it are dropped."""
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
