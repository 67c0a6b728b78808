import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from urzoo.evaluation import load_task
from urzoo.leaderboard.build import make_board
from urzoo.leaderboard.charts import charts
from urzoo.leaderboard.columns import CSV
from urzoo.leaderboard.page import render_page
from urzoo.leaderboard.report import render_report
from urzoo.leaderboard.tables import overview_table, render_csv, render_markdown

from .conftest import BuiltBoard
from .test_groups import put_seeds


def test_the_json_holds_every_row_with_its_provenance(built: BuiltBoard):
    board = json.loads((built.out / "leaderboard.json").read_text())
    rows = [row for section in board["sections"] for row in (*section["measured"], *section["outdated"])]
    assert len(rows) == 7
    for row in rows:
        assert row["provenance"]["data"]["digest"]
        assert json.loads((built.out / row["link"]).read_text()) == row["provenance"]


def test_the_csv_reads_back(built: BuiltBoard):
    rows = list(csv.DictReader(io.StringIO((built.out / "leaderboard.csv").read_text())))
    assert set(rows[0]) == {column.name for column in CSV}
    assert {row["standing"] for row in rows} == {"ranked", "unranked", "outdated", "published"}
    best = next(row for row in rows if row["task"] == "smnist")
    assert (best["rank"], best["model"], float(best["value"])) == ("1", "someone/urgru-256", 98.71)
    assert all(row["rank"] == "" for row in rows if row["standing"] != "ranked")
    assert {row["gate"] for row in rows} == {"UR", "--", ""}


def test_the_markdown_keeps_measured_and_published_apart(built: BuiltBoard):
    text = (built.out / "README.md").read_text()
    section = text[text.index("## Sequential MNIST") : text.index("## Character Trajectories\n")]
    measured, published = section.split("**Published, not measured here**")
    assert "urlstm-128-smnist" in measured
    assert "LSSL" not in measured
    assert "urlstm-128-smnist" not in published
    assert "99.28" in published
    assert "urlstm-32" not in text
    for line in section.splitlines():
        if line.startswith("|"):
            assert line.endswith("|")


def test_every_table_row_has_as_many_cells_as_its_head(built: BuiltBoard):
    width = None
    for line in (built.out / "README.md").read_text().splitlines():
        if not line.startswith("|"):
            width = None
            continue
        width = width or line.count("|")
        assert line.count("|") == width, line


def test_the_study_stands_apart_from_the_models_to_choose_from(put: Callable[..., Path], results: Path):
    put("urlstm-256-smnist", "smnist", 0.9894)
    put_seeds(put, (0.98, 0.97))
    text = render_markdown(make_board(results, results.parent)[0])
    main, study = text.split("## Gating study")
    assert "urlstm-128-ur-seed0" not in main
    assert "| 1 | urlstm-256-smnist, *recommended* |" in main
    assert "urlstm-256" not in study
    assert "| urlstm-128-ur-smnist | **97.50 ± 0.71** | 97.00 to 98.00 |" in study
    assert "| 1 | urlstm-128-ur-seed0-smnist |" in study


def test_the_head_shows_interval_recommendation_and_what_is_published(put: Callable[..., Path], results: Path):
    put("urlstm-256-smnist", "smnist", 0.9894)
    put("someone/better", "smnist", 0.99, model__source="Hub")
    [line] = [
        line
        for line in overview_table(make_board(results, results.parent)[0]).splitlines()
        if "Sequential MNIST" in line
    ]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[2:] == [
        "**99.00** (98.80 to 99.18), someone/better",
        "urlstm-256-smnist",
        "102,154",
        "99.28, UR-LSTM (S4 paper Table 12; also listed by the aggregator)",
        "99.63, S4 (S4 paper Table 12)",
    ]


def test_what_there_is_to_say_of_a_score_stands_wherever_it_is_shown(put: Callable[..., Path], results: Path):
    perplexity = {"metrics": {"word_perplexity": 4700.5}, "primary_metric": "word_perplexity", "intervals": {}}
    put(
        "urlstm-9", "wikitext103_pages", 0.5, **perplexity, data__subset="60 pages", model__training__task="wikitext103"
    )
    put("chance", "smnist", 0.1135)
    put("worse", "scifar", 0.05)
    board = make_board(results, results.parent)[0]
    caveat = load_task("wikitext103_pages").caveat_of("wikitext103")
    assert caveat
    [pages] = [line for line in overview_table(board).splitlines() if "page by page" in line]
    assert f"**4700.50**, urlstm-9; 60 pages; {caveat}" in pages
    text, page = render_markdown(board), render_page(board, charts(board))
    assert text.count(f"60 pages; {caveat}") == 2  # in the head and in the task's table
    report = render_report(board, remarks=results / "none", folders=[])
    assert f"| urlstm-9; 60 pages; {caveat} | 4700.50" in report
    assert page.count(f'remark">{caveat}') == page.count(f'why">{caveat}') == 1
    for title in ("Sequential MNIST", "Sequential CIFAR-10"):
        assert "no better than chance" in next(line for line in text.splitlines() if f"| {title} |" in line)
    [row] = [row for row in csv.DictReader(io.StringIO(render_csv(board))) if row["task"] == "wikitext103_pages"]
    assert caveat in row["note"]


def test_a_caveat_is_of_checkpoints_made_for_the_other_task_alone(put: Callable[..., Path], results: Path):
    perplexity = {"metrics": {"word_perplexity": 4700.5}, "primary_metric": "word_perplexity", "intervals": {}}
    put("own", "wikitext103_pages", 0.5, **perplexity, model__training__task="wikitext103_pages")
    put("another", "wikitext103_pages", 0.5, **perplexity, model__training=None, model__cell=None)
    section = make_board(results, results.parent)[0].section("wikitext103_pages")
    assert [row.caveat for row in section.measured] == [None, None]


def test_seeds_in_csv_have_a_deviation_and_no_interval(put: Callable[..., Path], results: Path):
    put_seeds(put, (0.99, 0.1135))
    rows = list(csv.DictReader(io.StringIO(render_csv(make_board(results, results.parent)[0]))))
    [group] = [row for row in rows if row["standing"] == "mean over seeds"]
    assert (group["low"], group["high"]) == ("", "")
    assert float(group["deviation"]) == pytest.approx(100 * (0.99 - 0.1135) / 2**0.5)
    assert group["note"].endswith("; 1 of 2 seeds no better than chance")
    assert {row["deviation"] for row in rows if row["standing"] != "mean over seeds"} == {""}


def test_a_column_without_content_is_left_out(put: Callable[..., Path], results: Path):
    put("urlstm-512-imdb", "imdb", 0.92)
    lines = render_markdown(make_board(results, results.parent)[0]).splitlines()
    [head] = [line for line in lines if line.startswith("| # |")]
    assert "Note" not in head
    put("urlstm-256-imdb", "imdb", 0.91, data__subset="the first 400 tokens")
    lines = render_markdown(make_board(results, results.parent)[0]).splitlines()
    [head] = [line for line in lines if line.startswith("| # |")]
    assert "Note" in head
    assert any("the first 400 tokens" in line for line in lines)
