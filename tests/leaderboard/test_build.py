import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from urzoo.errors import ResultError, StaleError, UrzooError
from urzoo.leaderboard.build import build, check

from .conftest import BuiltBoard

FILES = {"README.md", "REPORT.md", "leaderboard.csv", "leaderboard.json", "index.html"}
PLOTS = {f"plots/{kind}.svg" for kind in ("overview", "standings", "learning_curves")}


def content(out: Path) -> dict[str, bytes]:
    """Every file of the board by name, without the result files."""
    files = (path for path in out.rglob("*") if path.is_file() and "results" not in path.parts)
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in files}


def test_a_build_writes_the_board_and_nothing_else(built: BuiltBoard):
    report = build(built.results, built.out, checkpoints=built.checkpoints)
    assert set(content(built.out)) == FILES | PLOTS
    assert {path.relative_to(built.out).as_posix() for path in report.files} == FILES | PLOTS
    assert report.left_out == {"urlstm-32-smnist/smnist.json": "partial"}


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


def test_a_picture_without_data_goes(built: BuiltBoard, tmp_path: Path):
    empty = tmp_path / "none"
    with pytest.raises(StaleError, match="learning_curves"):
        check(built.results, built.out, checkpoints=empty)
    build(built.results, built.out, checkpoints=empty)
    assert "plots/learning_curves.svg" not in content(built.out)
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
    before = content(built.out)
    put("newcomer", "smnist", 0.99)
    written: list[Path] = []

    def fill_up(path: Path, data: bytes) -> None:
        if len(written) == 3:
            raise UrzooError(f"cannot write {path}: No space left on device.")
        written.append(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    monkeypatch.setattr("urzoo.files.write_bytes", fill_up)
    with pytest.raises(UrzooError, match="No space left"):
        build(built.results, built.out, checkpoints=built.checkpoints)
    assert content(built.out) == before


def test_a_folder_that_is_a_file_is_one_line(built: BuiltBoard, tmp_path: Path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(UrzooError, match=r"cannot write .*taken") as caught:
        build(built.results, tmp_path / "taken", checkpoints=built.checkpoints)
    assert "\n" not in str(caught.value)


def test_a_page_of_a_thousand_results_stays_small(put: Callable[..., Path], results: Path):
    for n in range(500):
        for task in ("smnist", "pmnist"):
            gate, cell = ("UR", "--", "OM", "C-")[n % 4], ("lstm", "gru")[n % 2]
            size = {"model__parameters": 1000 * (n + 1), "model__training__wall_seconds": 60.0 * (n + 1)}
            put(f"model-{n}", task, 0.9 + n / 10_000, model__gate=gate, model__cell=cell, **size)
    build(results, results.parent)
    assert (results.parent / "index.html").stat().st_size < 8_000_000
