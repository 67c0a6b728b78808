"""Finished batches survive a kill at any moment, and are used by the same evaluation only."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.evaluation.conftest import name_of, pairs
from tests.evaluation.examples import images
from urzoo.errors import ResultError, UrzooError
from urzoo.evaluation import load_task
from urzoo.evaluation.image_classification import ImageClassification
from urzoo.evaluation.journal import Journal, locked
from urzoo.evaluation.runner import Evaluation, Settings, Subject

SETTINGS = Settings(limit=40, batch_size=10)


def batch(number: int) -> dict[str, np.ndarray]:
    return {"scores": np.full((3, 2), float(number)), "seconds": np.array([0.5])}


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "model", "task")


def written(journal: Journal) -> list[Path]:
    """The journal's files after three batches."""
    for number in range(3):
        journal.add("this", number * 10, batch(number))
    return sorted(journal.folder.rglob("*.npz"))


def test_batches_are_read_back(journal: Journal):
    assert len(written(journal)) == 3
    found = journal.batches("this")
    assert sorted(found) == [0, 10, 20]
    assert np.array_equal(found[20]["scores"], batch(2)["scores"])


def test_a_journal_of_another_evaluation_is_not_used_and_thrown_away(journal: Journal):
    written(journal)
    journal.add("another", 7, batch(7))
    assert sorted(journal.batches("another")) == [7]
    journal.discard(but="another")
    assert (journal.batches("this"), sorted(journal.batches("another"))) == ({}, [7])
    journal.discard()
    assert list(journal.folder.iterdir()) == []


def test_a_truncated_file_counts_for_nothing_and_the_others_stand(journal: Journal):
    first = written(journal)[0]
    content = first.read_bytes()
    for length in range(0, len(content), 13):
        first.write_bytes(content[:length])
        assert sorted(journal.batches("this")) == [10, 20]


def test_a_flipped_bit_is_never_taken_for_a_figure(journal: Journal):
    first = written(journal)[0]
    content = first.read_bytes()
    lost = 0
    for position in range(0, len(content), 7):
        damaged = bytearray(content)
        damaged[position] ^= 4
        first.write_bytes(damaged)
        found = journal.batches("this")
        assert {10, 20} <= set(found)
        if 0 in found:
            assert found[0].keys() == batch(0).keys()
            assert all(np.array_equal(found[0][name], values) for name, values in batch(0).items())
        else:
            lost += 1
    assert lost > 20


def test_a_full_disk_is_told_in_one_line(journal: Journal, monkeypatch: pytest.MonkeyPatch):
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    written(journal)
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(UrzooError, match="No space left on device"):
            journal.add("this", 5, batch(5))
    assert sorted(journal.batches("this")) == [0, 10, 20]


def test_a_lock_is_held_once_and_freed(journal: Journal):
    with locked(journal.lock, "at work"):
        with pytest.raises(ResultError, match="another process is at work"), locked(journal.lock, "at work"):
            pass
        assert journal.lock.exists()
    with locked(journal.lock, "at work"):
        pass
    assert not journal.lock.exists()


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
    add = Journal.add

    def stop(self: Journal, fingerprint: str, number: int, outputs: dict[str, np.ndarray]) -> None:
        add(self, fingerprint, number, {**outputs, "scores": np.zeros_like(outputs["scores"])})
        raise Interrupted

    monkeypatch.setattr(Journal, "add", stop)
    with pytest.raises(Interrupted):
        pairs([raster], ["smnist"], results=results, settings=SETTINGS)
    monkeypatch.undo()
    [pair] = pairs([raster], ["smnist"], results=results, settings=Settings(limit=40, batch_size=20))
    [whole] = pairs([raster], ["smnist"], results=results / "again", settings=SETTINGS)
    assert pair.result.metrics["accuracy"] == whole.result.metrics["accuracy"]


def test_the_same_rows_in_another_order_do_not_use_the_finished_batches(raster: Path):
    """The digest of the data is the same."""
    split = images("mnist")
    orders = (split, split, split.select(np.arange(split.rows)[::-1]))
    one, same, turned = (Evaluation(Subject.of(raster), load_task("smnist"), of, SETTINGS).fingerprint for of in orders)
    assert one == same != turned


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
    others = [folder / ".smnist_more.json.k3x.part", folder / ".smnist.two.json.k3x.part", folder / "notes.part"]
    others += [folder / ".smnist.two.lock.part", folder / f".smnist.two.{'0' * 16}.journal.part"]
    for path in (folder / ".smnist.json.a1b2.part", folder / ".smnist.predictions.parquet.c3.part", *others):
        path.write_text('{"schema_ver')
    pairs([raster], ["smnist"], results=results, settings=SETTINGS)
    assert {path.name for path in pair_files(folder)} == {"smnist.json", *(path.name for path in others)}
