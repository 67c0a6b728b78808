import re
from pathlib import Path

import pytest
from markupsafe import Markup

from urzoo.leaderboard import columns
from urzoo.leaderboard.build import make_board
from urzoo.leaderboard.columns import filled

ROOT = Path(__file__).parents[2]
TABLES = ("MEASURED", "MEASURED_ON_PAGE", "PUBLISHED", "PUBLISHED_ON_PAGE")


@pytest.mark.parametrize("table", TABLES)
def test_each_cell_of_each_table_can_be_shown(example: Path, table: str):
    board, _ = make_board(example, example.parent)
    for section in board.sections:
        for row in section.published if "PUBLISHED" in table else section.measured:
            for column in getattr(columns, table):
                assert isinstance(column.value(section, row), str | int | float | None)
                assert isinstance(column.html(section, row), Markup)
                assert "\n" not in column.markdown(section, row)


def test_a_column_is_one_object(example: Path):
    """What CONTRIBUTING shows: a new column is one object, named in the tables where it stands."""
    [shown] = re.findall(r"(?m)^    SECONDS = (Column.*)$", (ROOT / "CONTRIBUTING.md").read_text("utf-8"))
    seconds = eval(shown, vars(columns))
    board, _ = make_board(example, example.parent)
    section = board.section("smnist")
    assert seconds in filled((columns.MODEL, seconds), section, section.measured)
    row = section.measured[0]
    assert (seconds.markdown(section, row), seconds.html(section, row), seconds.value(section, row)) == (
        "41.5",
        "41.5",
        41.5,
    )
    # As in CSV, which has rows of every kind.
    assert all(seconds.value(section, row) is None for row in (*section.groups, *section.published))
    assert section.published


def test_csv_has_a_value_or_none_for_each_kind_of_row(example: Path):
    board, _ = make_board(example, example.parent)
    for section in board.sections:
        for row in (*section.groups, *section.measured, *section.outdated, *section.published):
            assert all(isinstance(column.value(section, row), str | int | float | None) for column in columns.CSV)


def test_the_names_of_csv_columns_are_different():
    names = [column.name for column in columns.CSV]
    assert len(set(names)) == len(names)
