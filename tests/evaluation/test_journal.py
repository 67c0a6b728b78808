"""Finished batches survive a kill at any moment, and are used by the same evaluation only."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.evaluation.conftest import name_of, pairs
from urzoo.errors import ResultError, UrzooError
from urzoo.evaluation.image_classification import ImageClassification
from urzoo.evaluation.journal import Journal, JournalFiles, locked
from urzoo.evaluation.runner import Settings

SETTINGS = Settings(limit=40, batch_size=10)


def batch(number: int) -> dict[str, np.ndarray]:
    return {"scores": np.full((3, 2), float(number)), "seconds": np.array([0.5])}


@pytest.fixture
def files(tmp_path: Path) -> JournalFiles:
    return JournalFiles(tmp_path / "model", "task")


def write(files: JournalFiles, count: int, *, process: int = 0, fingerprint: str = "this") -> None:
    with Journal(files.path(process), fingerprint) as journal:
        for number in range(count):
            journal.append(number * 10 + process, batch(number))


def test_batches_are_read_back(files: JournalFiles):
    write(files, 3)
    write(files, 2, process=1)
    found = files.finished("this")
    assert sorted(found) == [0, 1, 10, 11, 20]
    assert np.array_equal(found[20]["scores"], batch(2)["scores"])


def test_a_journal_of_another_evaluation_is_not_used_and_thrown_away(files: JournalFiles):
    write(files, 3, fingerprint="another")
    assert files.finished("this") == {}
    write(files, 1)
    assert sorted(files.finished("this")) == [0]
    assert files.finished("another") == {}


def test_every_truncation_leaves_the_whole_batches_before_it(files: JournalFiles):
    ends = []
    for count in range(4):
        write(files, count)
        ends.append(files.path(0).stat().st_size)
        files.discard()
    write(files, 3)
    content = files.path(0).read_bytes()
    for length in range(0, len(content) + 1, 13):
        files.path(0).write_bytes(content[:length])
        whole = sum(length >= end for end in ends[1:])
        assert sorted(files.finished("this")) == [0, 10, 20][:whole]
        with Journal(files.path(0), "this") as journal:
            journal.append(99, batch(9))
        assert sorted(files.finished("this")) == sorted([*[0, 10, 20][:whole], 99])


def test_a_flipped_bit_ends_the_journal_there(files: JournalFiles):
    write(files, 3)
    content = files.path(0).read_bytes()
    for position in range(0, len(content), 101):
        damaged = bytearray(content)
        damaged[position] ^= 4
        files.path(0).write_bytes(damaged)
        found = files.finished("this")
        assert sorted(found) == [0, 10, 20][: len(found)]
        assert len(found) < 3


def test_a_full_disk_is_told_in_one_line(files: JournalFiles, monkeypatch: pytest.MonkeyPatch):
    write(files, 2)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with Journal(files.path(0), "this") as journal:
        monkeypatch.setattr("os.fsync", full)
        with pytest.raises(UrzooError, match="No space left on device"):
            journal.append(5, batch(5))
    assert {0, 10} <= set(files.finished("this"))


def test_a_lock_is_held_once_and_freed(files: JournalFiles):
    with locked(files.lock, "at work"):
        with pytest.raises(ResultError, match="another process is at work"), locked(files.lock, "at work"):
            pass
        assert files.lock.exists()
    with locked(files.lock, "at work"):
        pass
    assert not files.lock.exists()


class Interrupted(Exception):
    pass


def test_an_interrupted_evaluation_goes_on_and_covers_all_rows(
    raster: Path, results: Path, monkeypatch: pytest.MonkeyPatch
):
    computed: list[int] = []
    outputs = ImageClassification.outputs

    def counted(self: ImageClassification, rows: np.ndarray) -> dict[str, np.ndarray]:
        if len(computed) == 2 and not resumed:
            raise Interrupted
        computed.append(int(rows[0]))
        return outputs(self, rows)

    resumed = False
    monkeypatch.setattr(ImageClassification, "outputs", counted)
    with pytest.raises(Interrupted):
        pairs([raster], ["smnist"], results=results, settings=SETTINGS)
    assert not list(results.rglob("*.json"))
    resumed = True
    [pair] = pairs([raster], ["smnist"], results=results, settings=SETTINGS)
    assert computed == [0, 10, 20, 30]
    assert pair.result.samples == 40
    [whole] = pairs([raster], ["smnist"], results=results / "again", settings=SETTINGS)
    assert pair.result.metrics == whole.result.metrics
    assert [path.name for path in pair_files(results / name_of(raster))] == ["smnist.json"]


def test_other_settings_do_not_use_the_finished_batches(raster: Path, results: Path, monkeypatch: pytest.MonkeyPatch):
    append = Journal.append

    def stop(self: Journal, number: int, outputs: dict[str, np.ndarray]) -> None:
        append(self, number, {**outputs, "scores": np.zeros_like(outputs["scores"])})
        raise Interrupted

    monkeypatch.setattr(Journal, "append", stop)
    with pytest.raises(Interrupted):
        pairs([raster], ["smnist"], results=results, settings=SETTINGS)
    monkeypatch.undo()
    [pair] = pairs([raster], ["smnist"], results=results, settings=Settings(limit=40, batch_size=20))
    [whole] = pairs([raster], ["smnist"], results=results / "again", settings=SETTINGS)
    assert pair.result.metrics["accuracy"] == whole.result.metrics["accuracy"]


def pair_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file())


@pytest.mark.parametrize("kills", [8, pytest.param(100, marks=pytest.mark.slow)])
def test_kill_9_at_any_moment_loses_no_finished_batch_and_leaves_no_unreadable_file(
    raster: Path, results: Path, kills: int
):
    driver = Path(__file__).with_name("kill_driver.py")
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path.cwd())}
    command = [sys.executable, str(driver), str(raster), str(results), str(kills)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["killed"] == kills
    assert (report["lost"], report["twice"], report["wrong"]) == (0, 0, 0), report
    # The kills came at different moments of the evaluation.
    assert len(set(report["in_the_journal"])) > min(kills, 20) // 4
    assert report["left"] == ["smnist.json", "smnist.predictions.parquet"]


def test_what_a_kill_left_of_a_file_being_written_is_removed(raster: Path, results: Path):
    folder = results / name_of(raster)
    folder.mkdir(parents=True)
    others = [folder / ".smnist_more.json.k3x.part", folder / "notes.part"]
    for path in (folder / ".smnist.json.a1b2.part", folder / ".smnist.predictions.parquet.c3.part", *others):
        path.write_text('{"schema_ver')
    pairs([raster], ["smnist"], results=results, settings=SETTINGS)
    assert {path.name for path in pair_files(folder)} == {"smnist.json", *(path.name for path in others)}
