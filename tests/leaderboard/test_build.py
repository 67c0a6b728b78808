import csv
import io
import json
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from urzoo.errors import ResultError, StaleError, UrzooError
from urzoo.leaderboard.build import build, check
from urzoo.leaderboard.tables import CSV_COLUMNS

from .conftest import BuiltBoard

FILES = {"README.md", "REPORT.md", "leaderboard.csv", "leaderboard.json", "index.html"}
PLOTS = {f"plots/{kind}.png" for kind in ("parameters", "training_cost", "learning_curves", "gatings")}


def content(out: Path) -> dict[str, bytes]:
    """Every file of the board by name, without the result files."""
    files = (path for path in out.rglob("*") if path.is_file() and "results" not in path.parts)
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in files}


def test_a_build_writes_the_board_and_nothing_else(built: BuiltBoard):
    report = build(built.results, built.out, checkpoints=built.checkpoints)
    assert set(content(built.out)) == FILES | PLOTS
    assert {path.relative_to(built.out).as_posix() for path in report.files} == FILES | PLOTS
    assert report.partial == ("urlstm-32-smnist/smnist.json",)


def test_the_same_inputs_give_the_same_bytes(built: BuiltBoard, tmp_path: Path):
    # Elsewhere, later, and with the result files written in another order.
    other = tmp_path / "elsewhere" / "board"
    for path in sorted(built.results.rglob("*.json"), reverse=True):
        target = other / "results" / path.relative_to(built.results)
        target.parent.mkdir(parents=True)
        shutil.copyfile(path, target)
    build(other / "results", other, checkpoints=built.checkpoints)
    assert content(other) == content(built.out)


def test_no_path_of_this_machine_is_on_the_board(built: BuiltBoard, pristine: BuiltBoard):
    for name, text in content(built.out).items():
        assert str(pristine.out.parent).encode() not in text, name


def test_a_fresh_board_passes_the_check(built: BuiltBoard):
    check(built.results, built.out, checkpoints=built.checkpoints)


@pytest.mark.parametrize("name", sorted(FILES | PLOTS))
def test_the_check_names_a_file_that_was_touched_or_is_gone(built: BuiltBoard, name: str):
    out = built.out
    (out / name).write_bytes(b"edited by hand")
    with pytest.raises(StaleError, match=f"{re.escape(name)}. Type: urzoo leaderboard"):
        check(built.results, out, checkpoints=built.checkpoints)
    (out / name).unlink()
    with pytest.raises(StaleError, match=re.escape(name)):
        check(built.results, out, checkpoints=built.checkpoints)


def test_the_check_notices_a_new_result(built: BuiltBoard, put: Callable[..., Path]):
    put("newcomer", "smnist", 0.99)
    with pytest.raises(StaleError) as caught:
        check(built.results, built.out, checkpoints=built.checkpoints)
    assert all(name in str(caught.value) for name in FILES)


def test_pictures_are_not_drawn_again_for_nothing(built: BuiltBoard):
    picture = built.out / "plots" / "parameters.png"
    before = picture.stat().st_mtime_ns, picture.stat().st_ino
    build(built.results, built.out, checkpoints=built.checkpoints)
    assert (picture.stat().st_mtime_ns, picture.stat().st_ino) == before


def test_a_picture_without_data_goes(built: BuiltBoard, tmp_path: Path):
    empty = tmp_path / "none"
    with pytest.raises(StaleError, match="learning_curves"):
        check(built.results, built.out, checkpoints=empty)
    build(built.results, built.out, checkpoints=empty)
    assert "plots/learning_curves.png" not in content(built.out)
    check(built.results, built.out, checkpoints=empty)


def test_a_refused_result_leaves_the_board_as_it_was(built: BuiltBoard, put: Callable[..., Path]):
    before = content(built.out)
    put("cheat", "smnist", 0.999, model__training__selection_split="test")
    with pytest.raises(ResultError, match="selection_split is 'test'"):
        build(built.results, built.out, checkpoints=built.checkpoints)
    assert content(built.out) == before


def test_a_full_disk_leaves_the_board_as_it_was(
    built: BuiltBoard, put: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
):
    from urzoo.leaderboard import build as module

    before = content(built.out)
    put("newcomer", "smnist", 0.99)
    written: list[Path] = []

    def fill_up(path: Path, data: bytes) -> None:
        if len(written) == 3:
            raise UrzooError(f"cannot write {path}: No space left on device.")
        written.append(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    monkeypatch.setattr(module, "write_bytes", fill_up)
    with pytest.raises(UrzooError, match="No space left"):
        build(built.results, built.out, checkpoints=built.checkpoints)
    assert content(built.out) == before


def test_a_folder_that_is_a_file_is_one_line(built: BuiltBoard, tmp_path: Path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(UrzooError, match=r"cannot write .*taken") as caught:
        build(built.results, tmp_path / "taken", checkpoints=built.checkpoints)
    assert "\n" not in str(caught.value)


def test_the_json_holds_every_row_with_its_provenance(built: BuiltBoard):
    board = json.loads((built.out / "leaderboard.json").read_text())
    rows = [row for section in board["sections"] for row in (*section["measured"], *section["outdated"])]
    assert len(rows) == 7
    for row in rows:
        assert row["provenance"]["data"]["digest"]
        assert json.loads((built.out / row["link"]).read_text()) == row["provenance"]


def test_the_csv_reads_back(built: BuiltBoard):
    rows = list(csv.DictReader(io.StringIO((built.out / "leaderboard.csv").read_text())))
    assert set(rows[0]) == set(CSV_COLUMNS)
    assert {row["standing"] for row in rows} == {"ranked", "unranked", "outdated", "published"}
    best = rows[0]
    assert (best["rank"], best["model"], float(best["value"])) == ("1", "someone/urgru-256", 98.71)
    assert all(row["rank"] == "" for row in rows if row["standing"] != "ranked")
    assert {row["gate"] for row in rows} == {"UR", "--", ""}


def test_the_markdown_keeps_measured_and_published_apart(built: BuiltBoard):
    text = (built.out / "README.md").read_text()
    section = text[text.index("## Sequential MNIST") : text.index("## Permuted MNIST")]
    measured, published = section.split("**Published**")
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


def test_a_thousand_results_build_within_seconds(put: Callable[..., Path], results: Path):
    for n in range(500):
        for task in ("smnist", "pmnist"):
            gate, cell = ("UR", "--", "OM", "C-")[n % 4], ("lstm", "gru")[n % 2]
            size = {"model__parameters": 1000 * (n + 1), "model__training__wall_seconds": 60.0 * (n + 1)}
            put(f"model-{n}", task, 0.9 + n / 10_000, model__gate=gate, model__cell=cell, **size)
    began = time.process_time()
    build(results, results.parent)
    # Processor time, which other work on the machine hardly lengthens.
    assert time.process_time() - began < 5
    assert (results.parent / "index.html").stat().st_size < 8_000_000
