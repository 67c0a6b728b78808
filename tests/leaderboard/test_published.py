import pytest

from urzoo.errors import UrzooError
from urzoo.leaderboard.published import PUBLISHED_FILE, parse_published, read_published
from urzoo.schema import read_yaml


@pytest.fixture
def content() -> dict:
    return read_yaml(PUBLISHED_FILE, error=UrzooError)


def test_every_row_says_where_it_was_printed():
    published = read_published()
    assert len(published.rows) == 60
    for row in published.rows:
        source = published.sources[row.source]
        assert source.arxiv
        assert row.table or source.secondary, row


def test_the_ur_rows_are_those_of_the_s4_paper():
    published = read_published()
    figures = {
        (row.model, row.task): row.value
        for row in published.rows
        if row.source == "s4" and row.model in ("UR-LSTM", "UR-GRU")
    }
    assert figures == {
        ("UR-LSTM", "smnist"): "99.28",
        ("UR-LSTM", "pmnist"): "96.96",
        ("UR-LSTM", "scifar"): "71.00",
        ("UR-GRU", "smnist"): "99.27",
        ("UR-GRU", "pmnist"): "96.51",
        ("UR-GRU", "scifar"): "74.4",
    }


def test_figures_known_from_the_aggregator_alone_are_nobodys():
    published = read_published()
    alone = {row.value: row.model for row in published.rows if row.source == "aggregator"}
    assert set(alone) == {"87.3", "97.58", "34.6", "0.349"}
    assert set(alone.values()) == {"listed under Gu et al. 2020"}
    repeated = {row.value for row in published.rows if "aggregator" in row.listed_by}
    assert repeated == {"99.28", "96.96", "74.4"}


def test_the_place_is_told_in_a_few_words():
    published = read_published()
    row = next(row for row in published.rows if row.model == "UR-GRU" and row.task == "scifar")
    assert published.listed(row) == "S4 paper Table 12; also listed by the aggregator"


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"value": 99.2}, "value"),
        ({"value": "99,2"}, "value"),
        ({"value": "nan"}, "value"),
        ({"source": "hearsay"}, "hearsay"),
        ({"listed_by": ["hearsay"]}, "hearsay"),
        ({"unit": "percent"}, "unit"),
        ({"colour": "red"}, "unknown key rows.0.colour"),
        ({"task": "unheard_of"}, "no title"),
        ({"metric": "unheard_of"}, "no title"),
        ({"gate": "ZZ"}, "gate"),
    ],
)
def test_a_bent_row_is_refused(content: dict, change: dict, complaint: str):
    content["rows"][0] |= change
    with pytest.raises(UrzooError, match=complaint) as caught:
        parse_published(content, "published.yaml")
    assert "\n" not in str(caught.value)


def test_a_figure_that_stands_twice_is_refused(content: dict):
    content["rows"].append(content["rows"][0])
    with pytest.raises(UrzooError, match="stands twice"):
        parse_published(content, "published.yaml")
