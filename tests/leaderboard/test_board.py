import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from urzoo.errors import ResultError
from urzoo.leaderboard.board import assemble
from urzoo.leaderboard.collect import collect, current_tasks
from urzoo.leaderboard.published import read_published
from urzoo.leaderboard.schema import Board


def board_of(results: Path) -> Board:
    return assemble(collect(results).evidence, read_published(), current_tasks())


def refusal(results: Path) -> str:
    with pytest.raises(ResultError) as caught:
        board_of(results)
    message = str(caught.value)
    assert "\n" not in message
    assert str(results) in message
    return message


def test_rows_are_ranked_by_the_primary_metric(example: Path):
    section = board_of(example).section("smnist")
    assert [(row.rank, row.model) for row in section.measured] == [
        (1, "someone/urgru-256"),
        (2, "urlstm-128-smnist"),
        (3, "lstm-128-smnist"),
        (None, "google/vit-tiny"),
    ]


def test_a_metric_where_less_is_better_ranks_the_other_way(put: Callable[..., Path], results: Path):
    put("a", "smnist", 0.9)
    put("b", "smnist", 0.8)
    tasks = current_tasks()
    spec = tasks["smnist"].task.primary_metric.model_copy(update={"higher_is_better": False})
    turned = tasks["smnist"].task.model_copy(update={"metrics": [spec]})
    tasks["smnist"] = type(tasks["smnist"])(turned, tasks["smnist"].digest)
    board = assemble(collect(results).evidence, read_published(), tasks)
    assert [row.model for row in board.section("smnist").measured] == ["b", "a"]


def test_equal_scores_share_a_rank(put: Callable[..., Path], results: Path):
    for name, score in (("d", 0.97), ("c", 0.98), ("b", 0.98), ("a", 0.99)):
        put(name, "smnist", score)
    measured = board_of(results).section("smnist").measured
    assert [(row.rank, row.model) for row in measured] == [(1, "a"), (2, "b"), (2, "c"), (4, "d")]


def test_a_model_of_unknown_selection_is_shown_without_a_rank(example: Path):
    row = board_of(example).section("smnist").measured[-1]
    assert (row.kind, row.rank, row.status) == ("baseline", None, "unranked")
    assert "not known on which split" in row.reason


def test_another_version_or_other_data_make_a_row_outdated(example: Path):
    board = board_of(example)
    (version,), (data,) = board.section("smnist").outdated, board.section("pmnist").outdated
    assert version.rank is None
    assert "version 7" in version.reason
    assert data.rank is None
    assert "ffffffffffff" in data.reason


def test_a_partial_result_never_reaches_the_board(example: Path):
    assert collect(example).left_out == {"urlstm-32-smnist/smnist.json": "partial"}
    assert "urlstm-32" not in board_of(example).model_dump_json()


def test_published_rows_stand_apart_and_have_no_rank(example: Path):
    section = board_of(example).section("smnist")
    assert {row.model for row in section.published}.isdisjoint(row.model for row in section.measured)
    assert "rank" not in type(section.published[0]).model_fields
    assert section.best.model == "someone/urgru-256"
    assert (section.best_published.model, section.best_published.shown) == ("S4", "99.63")


def test_variants_of_a_task_stand_together(example: Path):
    tasks = [section.task for section in board_of(example).sections]
    # What most people come for is first, problems without data of their own are last.
    assert tasks[:4] == ["imdb", "scifar", "pmnist", "wikitext103"]
    assert tasks[-2:] == ["copy", "adding"]
    for family in ("character_trajectories", "wikitext103"):
        places = [place for place, task in enumerate(tasks) if task.startswith(family)]
        assert places == list(range(places[0], places[0] + len(places)))


def test_a_figure_no_paper_vouches_for_is_never_the_best(results: Path):
    assert board_of(results).section("imdb").best_published is None


def test_without_results_the_board_has_the_published_rows_alone(results: Path):
    sections = board_of(results).sections
    shown = {(row.model, row.shown, row.listed) for section in sections for row in section.published}
    published = read_published()
    assert shown == {(row.model, row.value, published.listed(row)) for row in published.rows}
    assert not any(section.measured for section in sections)


def test_values_are_shown_in_the_unit_and_digits_of_the_task(example: Path):
    row = board_of(example).section("smnist").measured[1]
    assert (row.shown, row.value, row.interval) == ("98.62", 98.62, "98.42 to 98.80")


def test_a_row_carries_what_repeats_it(example: Path):
    row = board_of(example).section("smnist").measured[1]
    assert row.command == "urzoo eval urlstm-128-smnist --task smnist --batch-size 256"
    assert (row.date, row.parameters, row.gate, row.cell, row.kind, row.hidden_size) == (
        "2026-11-20", 102_154, "UR", "lstm", "shipped", 128,
    )  # fmt: skip
    assert row.provenance["model"]["weights_sha256"] == "a" * 64


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"model__training__selection_split": "test"}, "model.training.selection_split"),
        ({"model__training": None}, "model.training"),
        ({"model__gate": "<b>"}, "model.gate"),
        ({"model__cell": "xlstm"}, "model.cell"),
        ({"primary_metric": "cross_entropy"}, "primary_metric"),
        ({"data__split": "train"}, "data"),
        ({"model__weights_sha256": None}, "model.weights_sha256"),
        ({"data__digest": "abc"}, "data.digest"),
        ({"command": None}, "command"),
        ({"model__parameters": "many"}, "model.parameters"),
        ({"metrics": {"accuracy": 1e999}}, "Infinity"),
        ({"schema_version": 99}, "schema 99"),
        ({"schema_version": 0}, "schema 0"),
        ({"model__name": "../../etc/passwd"}, "model.name"),
        ({"model__name": "a" * 300}, "model.name"),
        ({"model__architecture": "x" * 10_000}, "model.architecture"),
        ({"model__architecture": "safe\u202egnp.exe"}, "model.architecture holds the character U.202E"),
        ({"hardware": "a\u200bb"}, "hardware holds the character U.200B"),
        ({"command": "urzoo\nrm -rf"}, "command"),
    ],
)
def test_a_row_without_sound_provenance_is_refused_by_file_and_key(
    put: Callable[..., Path], results: Path, record: Callable[..., dict], change: dict, key: str
):
    bent = record(**change)
    path = results / "urlstm-128-smnist" / "smnist.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(bent))
    message = refusal(results)
    assert "smnist.json" in message
    assert re.search(key, message), message


def test_a_missing_key_is_named(put: Callable[..., Path], results: Path, record: Callable[..., dict]):
    content = record()
    del content["seed"]
    put().write_text(json.dumps(content))
    assert "key seed is missing" in refusal(results)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"schema_version": 1, "schema_version"'])
def test_a_malformed_file_is_refused(put: Callable[..., Path], results: Path, content: bytes):
    put().write_bytes(content)
    refusal(results)


def test_a_file_of_ten_megabytes_is_refused_unread(put: Callable[..., Path], results: Path):
    put(hardware="x" * 10_000_000)
    assert "bytes" in refusal(results)


def test_a_result_in_the_wrong_place_is_refused(put: Callable[..., Path], results: Path):
    path = put()
    (results / "other").mkdir()
    path.rename(results / "other" / "smnist.json")
    assert "expected it at" in refusal(results)


def test_an_unknown_task_is_refused_with_near_matches(put: Callable[..., Path], results: Path):
    path = put()
    text = path.read_text().replace('"smnist"', '"smnits"')
    (path.parent / "smnits.json").write_text(text)
    path.unlink()
    assert "Did you mean 'smnist'" in refusal(results)


def test_what_a_model_reads_at_a_time_is_shown(put: Callable[..., Path], results: Path):
    put("someone/llama", "smnist", data__subset="read in windows of 256 tokens")
    assert board_of(results).section("smnist").measured[0].context == "read in windows of 256 tokens"
