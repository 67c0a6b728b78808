"""A user's own data and task, named by path: described by one command, evaluated like others, never on the board."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from tests.data.conftest import write_parquet
from tests.evaluation.conftest import name_of, pairs
from urzoo.cli import main
from urzoo.data import describe, load_split
from urzoo.errors import DataError, UrzooError, UsageError
from urzoo.evaluation import evaluate, load_task, read_result, task, tasks
from urzoo.leaderboard.collect import collect

ROOT = Path(__file__).parents[2]
PICTURES = np.random.RandomState(0).randint(0, 256, (30, 28, 28), dtype=np.uint8)
CLASSES = np.arange(30, dtype=np.int64) % 10
TASK = {
    "name": "digits",
    "title": "Scanned digits",
    "problem": "image-classification",
    "data": {"folder": "./data", "split": "test"},
    "requires": {"pixel_order": "raster", "permutation_seed": None, "channels": 1, "steps": 784},
}
ACCURACY = {"name": "accuracy", "title": "Accuracy", "unit": "%", "scale": 100.0, "digits": 2} | {
    "higher_is_better": True,
    "primary": True,
    "tolerance": 0.0005,
}


pytestmark = pytest.mark.usefixtures("no_local_data")


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """The task file, with its data beside it."""
    write_parquet(tmp_path / "data" / "test.parquet", PICTURES, CLASSES)
    write_parquet(tmp_path / "data" / "train-00000-of-00001.parquet", PICTURES[:20], CLASSES[:20])
    (tmp_path / "data" / "dataset.yaml").write_text(yaml.safe_dump(describe(tmp_path / "data")))
    return write(tmp_path)


def write(folder: Path, **changes: object) -> Path:
    file = folder / "digits.yaml"
    file.write_text(yaml.safe_dump(TASK | changes))
    return file


def test_the_command_describes_a_folder(own: Path, capsys: pytest.CaptureFixture[str]):
    file = own.parent / "data" / "dataset.yaml"
    file.write_text("")  # as where the shell has made it for the output
    assert main(["data", "digest", str(own.parent / "data")]) == 0
    assert capsys.readouterr().out == f"{file}\n"
    described = yaml.safe_load(file.read_text())
    assert described == describe(own.parent / "data")
    assert described["columns"]["image"] == {"kind": "image", "height": 28, "width": 28, "channels": 1}
    assert described["columns"]["label"]["classes"] == [str(number) for number in range(10)]
    assert {name: split["rows"] for name, split in described["splits"].items()} == {"test": 30, "train": 20}


def test_texts_and_series_are_described_with_the_classes_that_datasets_wrote(tmp_path: Path):
    info = {"info": {"features": {"mood": {"names": ["sad", "glad"], "_type": "ClassLabel"}}}}
    table = pa.table({"words": ["so so", "fine"], "mood": [0, 1], "series": [[[0.5, 1.0]], [[1.0, 2.0], [3.0, 4.0]]]})
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(info)}), tmp_path / "test.parquet")
    columns = describe(tmp_path)["columns"]
    assert columns["words"] == {"kind": "text"}
    assert columns["mood"] == {"kind": "label", "classes": ["sad", "glad"]}
    assert columns["series"] == {"kind": "sequence", "channels": 2}


def named(path: Path, numbers: list[int | None], names: list[str]) -> None:
    """A file of texts with labels, as `datasets` writes it after encoding the classes of this file."""
    info = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}
    table = pa.table({"text": ["some words"] * len(numbers), "label": pa.array(numbers, pa.int64())})
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(info)}), path)


def test_a_number_is_the_same_class_in_all_files(tmp_path: Path):
    """Encoded by itself, a file that lacks a class numbers those behind it one lower."""
    named(tmp_path / "train.parquet", [0, 1, 2], ["bad", "fair", "good"])
    named(tmp_path / "test.parquet", [0, 1], ["bad", "good"])
    with pytest.raises(DataError, match=r"train\.parquet: column 'label' calls class 1 'fair', another file 'good'"):
        describe(tmp_path)
    named(tmp_path / "test.parquet", [0, -1], ["bad", "fair"])
    for names in ("test", "validation"):
        label = describe(tmp_path)["columns"]["label"]
        assert label == {"kind": "label", "classes": ["bad", "fair", "good"], "unlabelled": True}
        named(tmp_path / f"{names}.parquet", [0, -1], ["bad", "fair", "good"])


def test_what_was_written_by_hand_stays_where_a_folder_is_described_again(tmp_path: Path):
    table = {"text": ["a", "b", "c"], "label": [0, 1, 2]}
    pq.write_table(pa.table({name: values[:2] for name, values in table.items()}), tmp_path / "test.parquet")
    described = describe(tmp_path)
    by_hand = {"name": "moods", "title": "Moods: mine", "citation": "me"}
    by_hand["columns"] = described["columns"] | {"label": {"kind": "label", "classes": ["sad", "so"]}}
    (tmp_path / "dataset.yaml").write_text(yaml.safe_dump(described | by_hand))
    assert describe(tmp_path) == described | by_hand
    pq.write_table(pa.table(table), tmp_path / "test.parquet")
    again = describe(tmp_path)
    assert again["columns"]["label"]["classes"] == ["sad", "so", "2"]
    assert again["title"] == "Moods: mine"
    assert again["splits"]["test"]["rows"] == 3


def test_names_in_the_data_are_never_given_to_other_classes(tmp_path: Path):
    named(tmp_path / "test.parquet", [0, 1], ["bad", "good"])
    (tmp_path / "dataset.yaml").write_text(yaml.safe_dump(describe(tmp_path)).replace("bad", "poor"))
    with pytest.warns(UserWarning, match=r"keeps its names of classes; by those in the data: \{'bad': 'poor'\}"):
        assert describe(tmp_path)["columns"]["label"]["classes"] == ["poor", "good"]
    named(tmp_path / "test.parquet", [0, 1], ["good", "bad"])
    with pytest.raises(DataError, match=r"dataset\.yaml calls class 1 'good', which is 0 in the data; correct its"):
        describe(tmp_path)
    numbered = (tmp_path / "dataset.yaml").read_text().replace("poor", "'0'").replace("good", "'1'")
    (tmp_path / "dataset.yaml").write_text(numbered)
    assert describe(tmp_path)["columns"]["label"]["classes"] == ["good", "bad"]


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"id": [0, 1], "label": [1, 0]}, "key columns: 'id' and 'label' are both of kind label; leave one out of the"),
        (
            {"text": ["a", "b"], "label": ["x", "y"]},
            r"'text' and 'label' are both of .* \(datasets: class_encode_column\)",
        ),
        (
            {"id": [5, 10_000]},
            "column 'id' goes to 10000, expected numbers of classes below 10000. Leave other columns",
        ),
        ({"label": [-100, 1]}, "column 'label' has -100 to 1, expected 0 to 1"),
    ],
)
def test_columns_too_many_or_of_no_use_are_refused_in_one_line(tmp_path: Path, columns: dict[str, list], said: str):
    table = pa.table(columns)
    pq.write_table(table.replace_schema_metadata({"huggingface": "[]"}), tmp_path / "test.parquet")
    with pytest.raises(DataError, match=said) as caught:
        describe(tmp_path)
    assert "\n" not in str(caught.value)


def test_missing_labels_and_classes_of_one_name_are_refused(own: Path, tmp_path: Path):
    (tmp_path / "mood").mkdir()
    named(tmp_path / "mood" / "test.parquet", [None, None], ["bad", "good"])
    with pytest.raises(DataError, match=r"has 2 empty values in column 'label'\.$"):
        describe(tmp_path / "mood")
    file = own.parent / "data" / "dataset.yaml"
    file.write_text(file.read_text().replace("'3'", "'4'"))
    with pytest.raises(DataError, match="two classes have one name"):
        load_task(str(own))


def test_a_photograph_on_its_side_is_described_as_it_is_decoded(tmp_path: Path):
    buffer = io.BytesIO()
    image = Image.new("L", (6, 4))
    image.getexif()[0x0112] = 6
    image.save(buffer, "JPEG", exif=image.getexif())
    pq.write_table(pa.table({"image": [buffer.getvalue()], "label": [0]}), tmp_path / "test.parquet")
    assert describe(tmp_path)["columns"]["image"] == {"kind": "image", "height": 6, "width": 4, "channels": 1}


def test_rows_without_a_label_are_not_scored(own: Path, raster: Path):
    folder = own.parent / "data"
    write_parquet(folder / "test.parquet", PICTURES, np.where(np.arange(30) == 7, -1, CLASSES))
    (folder / "dataset.yaml").write_text(yaml.safe_dump(describe(folder)))
    with pytest.raises(DataError, match=r"data \(test\) has a row without a label, 7; nothing can be scored there"):
        evaluate(raster, str(own), progress=False)


def test_a_result_stands_only_for_the_data_and_classes_it_is_of(
    raster: Path, own: Path, results: Path, capsys: pytest.CaptureFixture[str]
):
    words = ["eval", str(raster), "--task", str(own), "--results", str(results)]
    folder = own.parent / "data"

    def told() -> str:
        assert main(words) == 0
        return capsys.readouterr().out

    assert "(unchanged" not in told()
    assert "(unchanged" in told()
    description = yaml.safe_load((folder / "dataset.yaml").read_text())
    description["columns"]["label"]["classes"].reverse()
    (folder / "dataset.yaml").write_text(yaml.safe_dump(description))
    assert "(unchanged" not in told()
    write_parquet(folder / "test.parquet", PICTURES, (CLASSES + 1) % 10)
    assert main(words) == 1
    assert "its content has digest" in capsys.readouterr().err


def test_two_folders_of_one_name_are_not_mixed_up(raster: Path, own: Path, results: Path, tmp_path: Path):
    other = shutil.copytree(own.parent / "data", tmp_path / "other" / "data")
    write_parquet(other / "test.parquet", PICTURES[::-1].copy(), CLASSES)
    (other / "dataset.yaml").write_text(yaml.safe_dump(describe(other)))
    second = tmp_path / "other" / "letters.yaml"
    second.write_text(yaml.safe_dump(TASK | {"name": "letters"}))
    expected = [evaluate(raster, str(file), progress=False) for file in (own, second)]
    found = [pair.result for pair in pairs([raster], [str(own), str(second)], results=results)]
    for result, alone in zip(found, expected, strict=True):
        assert result is not None
        assert (result.data.digest, result.metrics) == (alone.data.digest, alone.metrics)
    assert found[0] != found[1]
    second.write_text(yaml.safe_dump(TASK))
    with pytest.raises(UsageError, match="two of the tasks named are called 'digits'"):
        pairs([raster], [str(own), str(second)], results=results)


def test_a_checkpoint_is_evaluated_on_own_data(
    raster: Path, own: Path, results: Path, capsys: pytest.CaptureFixture[str]
):
    result = evaluate(raster, str(own), progress=False)
    assert (result.task.name, result.samples, result.data.source) == ("digits", 30, "local")
    assert "--task path/to/digits.yaml" in result.command
    assert set(result.metrics) == {"accuracy", "cross_entropy"}
    assert main(["eval", str(raster), "--task", str(own), "--results", str(results)]) == 0
    assert "local data, never on a board" in capsys.readouterr().out
    file = results / name_of(raster) / "digits.json"
    assert read_result(file).metrics == result.metrics
    # A board is of urzoo's own tasks.
    assert collect(results).evidence == ()
    assert "digits" not in tasks()


def test_training_finds_own_data_by_their_name(own: Path):
    assert load_task(str(own)).metrics == load_task("smnist").metrics
    assert load_task("digits").title == "Scanned digits"
    assert np.array_equal(load_split("data", "train").images, PICTURES[:20])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": "smnist"}, "a task of urzoo's; give it another name"),
        ({"data": {"name": "mnist", "split": "test"}}, "expected a folder and a split"),
        ({"data": {"folder": "./data", "split": "tset"}}, "Did you mean 'test'"),
        ({"data": {"folder": "./nowhere", "split": "test"}}, "key data.folder is './nowhere', and there is no folder"),
        ({"data": {"folder": ".", "split": "test"}}, "make it with: urzoo data digest"),
        ({"problem": "text-classification", "requires": None}, "needs a column of kind text"),
        ({"problem": "singing"}, "key problem is 'singing'"),
        ({"title": None}, "key title is None"),
        ({"colour": "red"}, "unknown key colour"),
        (
            {"metrics": [ACCURACY]},
            "key metrics names accuracy; expected those of problem image-classification: accuracy, c",
        ),
        ({"requires": {**TASK["requires"], "chanels": 1}}, "unknown key requires.chanels"),
        (
            {"requires": {**TASK["requires"], "permutation_seed": 10**12}},
            "key requires.permutation_seed is 10000000000",
        ),
        ({"time_scale": 1e30}, "key time_scale is 1e+30: Input should be less than or equal to 1000"),
    ],
)
def test_a_task_file_that_is_wrong_is_refused_in_one_line(own: Path, changes: dict[str, object], said: str):
    with pytest.raises(UrzooError) as caught:
        load_task(str(write(own.parent, **changes)))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "digits" not in task.LOCAL


def test_data_that_changed_are_refused_with_what_to_do(own: Path, raster: Path):
    write_parquet(own.parent / "data" / "test.parquet", PICTURES[::-1].copy(), CLASSES)
    with pytest.raises(DataError, match=r"expected [0-9a-f]{64}\. If it was changed on purpose: urzoo data digest"):
        evaluate(raster, str(own), progress=False)
    (own.parent / "data" / "test.parquet").unlink()
    with pytest.raises(DataError, match=r"has no file test\.parquet"):
        evaluate(raster, str(own), progress=False)


def test_what_cannot_be_described_is_refused(own: Path, tmp_path: Path):
    with pytest.raises(UsageError, match="holds no parquet file"):
        describe(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="there is no task file"):
        load_task(str(tmp_path / "other.yaml"))
    shutil.copy(own.parent / "data" / "test.parquet", own.parent / "data" / "test-clean.parquet")
    with pytest.raises(UsageError, match=r"test-clean\.parquet is called after no split; expected such as test\.parq"):
        describe(own.parent / "data")
    (own.parent / "data" / "test-clean.parquet").rename(own.parent / "data" / "test-00000-of-00002.parquet")
    with pytest.raises(DataError, match=r"holds 1 of the 2 files of split 'test'"):
        describe(own.parent / "data")
    (own.parent / "data" / "test-00000-of-00002.parquet").rename(own.parent / "data" / "test-00000-of-00001.parquet")
    with pytest.raises(DataError, match=r"split 'test' twice, as test.parquet and test-00000-of-00001.parquet; remove"):
        describe(own.parent / "data")
    (own.parent / "data" / "test-00000-of-00001.parquet").unlink()
    pq.write_table(pa.table({"weight": [0.5, 1.5]}), tmp_path / "data" / "odd.parquet")
    with pytest.raises(DataError, match="column 'weight' is of type double"):
        describe(tmp_path / "data")
    shutil.rmtree(tmp_path / "data")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "test.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="is damaged or no parquet file"):
        describe(tmp_path / "data")


def test_what_the_first_row_hides_is_found(tmp_path: Path):
    latin = pa.Array.from_buffers(pa.string(), 2, pa.array([b"caf\xe9", b"tea"]).buffers())
    pq.write_table(pa.table({"text": latin, "label": [0, 1]}), tmp_path / "test.parquet")
    with pytest.raises(DataError, match=r"column 'text' holds text that is not UTF-8"):
        describe(tmp_path)
    series = pa.array([[], [[1.0, 2.0]]], pa.list_(pa.list_(pa.float32())))
    pq.write_table(pa.table({"series": series, "label": [0, 1]}), tmp_path / "test.parquet")
    with pytest.raises(DataError, match=r"sequence 0 has shape \(0,\), expected \(time, 2\)"):
        describe(tmp_path)
    pq.write_table(pa.table({"series": [[[1.0, 2.0]], [[1e300, 2.0]]], "label": [0, 1]}), tmp_path / "test.parquet")
    with pytest.raises(DataError, match=r"sequence 1 of column 'series' has a NaN or an infinity"):
        describe(tmp_path)


def test_images_that_lie_elsewhere_are_refused_with_how_to_put_them_in(tmp_path: Path):
    """As `datasets` writes a folder of images."""
    column = pa.array(
        [{"bytes": None, "path": "/pictures/one.png"}], pa.struct({"bytes": pa.binary(), "path": pa.string()})
    )
    pq.write_table(pa.table({"image": column, "label": [0]}), tmp_path / "test.parquet")
    with pytest.raises(
        DataError, match=r"column 'image' names files, such as .*map\(datasets\.table\.embed_table_storage"
    ):
        describe(tmp_path)
