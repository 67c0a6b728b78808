"""Ordinary spelling: what WikiText's tokenisation and a web page's marks become."""

import pytest

from urzoo.data import Split
from urzoo.data.schema import load_data_set
from urzoo.training.text.documents import documents_of
from urzoo.training.text.recipe import TextSource
from urzoo.training.text.surface import in_ordinary_spelling


@pytest.mark.parametrize(
    ("tokenised", "ordinary"),
    [
        (" = = Early life = = \n", "== Early life ==\n"),
        (" Lévy @-@ Bruhl paid 1 @,@ 200 @.@ 5 ( about 3 % ) . \n", "Lévy-Bruhl paid 1,200.5 (about 3%).\n"),
        (
            " It is the brothers ' house , and it is n't Anna 's . \n",
            "It is the brothers' house, and it isn't Anna's.\n",
        ),
        (' He said " hello " , then " bye . " \n', 'He said "hello", then "bye."\n'),
        (' An odd " mark . \n', 'An odd " mark.\n'),
        (" one ; two : three ? four ! \n", "one; two: three? four!\n"),
        (" \n", "\n"),
        ("A film.<br /><br />I liked it .", "A film.\n\nI liked it."),
        ("don't touch  this: it's typed (so), \"as is\".\n", "don't touch  this: it's typed (so), \"as is\".\n"),
    ],
)
def test_text_is_spelt_as_it_would_be_typed(tokenised, ordinary):
    assert in_ordinary_spelling(tokenised) == ordinary
    assert in_ordinary_spelling(ordinary) == ordinary


def test_articles_are_told_apart_before_they_are_respelt():
    rows = ["", " = Cats = \n", "", " A cat ' s tail . \n", "", " = Dogs = \n", "", " None . \n"]
    source = TextSource(name="wikitext-2", split="train", documents="pages", surface="ordinary", rare_words_below=None)
    split = Split(load_data_set("wikitext-2"), "train", "0" * 64, "data root", {"text": rows})
    assert ["".join(document) for document in documents_of(split, source)] == [
        "= Cats =\n\nA cat's tail.\n\n",
        "= Dogs =\n\nNone.\n",
    ]
