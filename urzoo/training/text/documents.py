"""Documents of a data set's split, each as a list of its lines: a row as it stands, or the lines of an article."""

from functools import cache
from pathlib import Path

from urzoo.data import Split, load_data_set, load_split
from urzoo.data.schema import LocalDataSet
from urzoo.data.wikitext import article_lines
from urzoo.errors import DataError, RecipeError, UsageError, unknown
from urzoo.evaluation.task import LOCAL, load_task, tasks
from urzoo.training.text.recipe import TextSource, TokenizerRecipe
from urzoo.training.text.surface import in_ordinary_spelling, in_wikitext_form, without_rare_words

Document = list[str]


def read_documents(source: TextSource, *, data_root: Path | str | None = None) -> list[Document]:
    """The documents of a source, from its split, verified.

    Raises:
        UsageError: The data set or the split does not exist, or has no text.
        DataError: It cannot be had, is damaged or empty.
    """
    split = load_split(source.name, source.split, data_root=data_root)
    if not any(column.kind == "text" for column in split.data_set.columns.values()):
        raise UsageError(f"data set {source.name!r} has no text; it has {', '.join(split.data_set.columns)}.")
    return documents_of(split, source)


def refuse_scored(tokenizer: TokenizerRecipe, *named: tuple[str, TextSource]) -> None:
    """Refuse to learn from a split that figures are reported on.

    Args:
        tokenizer: The section of the recipe.
        named: What else is learnt from, each with the key that names it.

    Raises:
        RecipeError: There is such a split; the message names its key.
    """
    texts = [] if tokenizer.kind == "checkpoint" else tokenizer.texts
    scored = {(data.name, data.split) for data in (load_task(name).data for name in (*tasks(), *LOCAL))}
    for key, source in (*named, *(("tokenizer.texts", source) for source in texts)):
        if text_of(source.name, source.split) in scored or source.split == "test":
            raise RecipeError(
                f"{key} names {source.name} ({source.split}), which figures are reported on; name another split."
            )


def text_of(name: str, split: str) -> tuple[str, str]:
    """The data set and the split by which a text goes: WikiText-2's validation and test text are WikiText-103's."""
    return ("wikitext-103", split) if name == "wikitext-2" and split != "train" else (name, split)


def digest_of(source: TextSource, *, data_root: Path | str | None = None) -> str:
    """The digest of the split that a source names, as its data set's file pins it; where it does not, that of the data.

    Raises:
        UsageError: The data set or the split does not exist.
        DataError: The data have to be read, and cannot be had.
    """
    splits = load_data_set(source.name).splits
    if source.split not in splits:
        raise UsageError(unknown(f"split of data set {source.name!r}", source.split, splits))
    pinned = splits[source.split].digest
    return _read_digest(source.name, source.split, data_root) if pinned is None else pinned


def order_of(source: TextSource) -> str | None:
    """The digest of the order of a split of a user's own, whose rows may be read as one text; None where it has none.

    That of a data set of urzoo's never changes.
    """
    data_set = load_data_set(source.name)
    return data_set.splits[source.split].order_digest if isinstance(data_set, LocalDataSet) else None


@cache
def _read_digest(name: str, split: str, data_root: Path | str | None) -> str:
    return load_split(name, split, data_root=data_root).digest


def documents_of(split: Split, source: TextSource) -> list[Document]:
    """The documents of a source, each as its lines; joined they are the document's text.

    Lines are kept apart because a tokenizer reads line by line: WikiText's figures are counted so. A row that is a
    document is one line here, whatever line ends it has.

    Raises:
        DataError: There is no text in it.
    """
    rows = split.texts
    if source.surface != "as-is":
        rows = in_wikitext_form(rows)
    if source.rare_words_below is not None:
        rows = without_rare_words(rows, source.rare_words_below)
    documents = article_lines(rows) if source.documents == "pages" else [[row] for row in rows]
    if source.surface == "ordinary":
        documents = [[in_ordinary_spelling(line) for line in document] for document in documents]
    kept = [document for document in documents if any(line.strip() for line in document)]
    if not kept:
        wanted = "articles, which begin with a title such as ' = Title = ' between blank lines"
        raise DataError(
            f"{source.name} ({source.split}) is empty: it has no {wanted if source.documents == 'pages' else 'text'}."
        )
    return kept
