"""A user's own data and task, named by path: described by one command, evaluated like others, never on the board."""

import io
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from tests.data.conftest import write_parquet
from tests.evaluation.conftest import name_of, pairs
from tests.evaluation.examples import WIKI, make_writer, save_tokenizer
from urzoo.cli import main
from urzoo.data import describe, load_split
from urzoo.data import schema as data_schema
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


@pytest.fixture(autouse=True)
def _forget(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(data_schema, "LOCAL", {})
    monkeypatch.setattr(task, "LOCAL", {})
    yield
    data_schema.load_data_set.cache_clear()


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
    assert main(["data", "digest", str(own.parent / "data")]) == 0
    described = yaml.safe_load(capsys.readouterr().out)
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


@pytest.fixture
def stories(tmp_path: Path) -> Path:
    """The task of a language model that the documentation shows, with its data and a checkpoint beside it."""
    page = (ROOT / "docs" / "pages" / "evaluate" / "task.md").read_text("utf-8")
    shown = re.search(r"```yaml\n# stories.yaml\n(.*?)```", page, re.DOTALL)
    assert shown is not None
    (tmp_path / "stories").mkdir()
    pq.write_table(pa.table({"text": WIKI}), tmp_path / "stories" / "test.parquet")
    (tmp_path / "stories" / "dataset.yaml").write_text(yaml.safe_dump(describe(tmp_path / "stories")))
    save_tokenizer(make_writer(tmp_path / "writer", neural_cache_size=30), WIKI)
    file = tmp_path / "stories.yaml"
    file.write_text(shown[1])
    return file


@pytest.mark.parametrize("version", ["", "version: 7\n"])
def test_a_task_file_that_changed_is_measured_anew(
    stories: Path, version: str, results: Path, capsys: pytest.CaptureFixture[str]
):
    stories.write_text(stories.read_text() + version)
    words = ["eval", str(stories.parent / "writer"), "--task", str(stories), "--results", str(results)]

    def told(**changes: object) -> str:
        stories.write_text(yaml.safe_dump(yaml.safe_load(stories.read_text()) | changes))
        assert main(words) == 0
        return capsys.readouterr().out

    first, again, titled = told(), told(), told(title="Other words for it")
    assert "a step of 0.0005 each 64 tokens, decay 0.01, local data" in first
    assert "(unchanged, with a neural cache of 30 tokens" in again
    assert "(unchanged" in titled
    settings = {"learning_rate": 0.01, "decay": 0.01, "segment_tokens": 64}
    assert "a step of 0.01 each 64" in told(dynamic_evaluation=settings)
    plain = told(dynamic_evaluation=None)
    assert "(unchanged" not in plain
    assert "a step of" not in plain


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            "{learning_rate: 5e-4, decay: 0, segment_tokens: 64}",
            "is '5e-4': Input should be a valid number, as in 0.0005",
        ),
        (
            "{learning_rate: .nan, decay: 0, segment_tokens: 64}",
            "learning_rate is nan: Input should be a finite number",
        ),
        ("{learning_rate: 2.0, decay: 0, segment_tokens: 64}", "learning_rate is 2.0: Input should be less than or eq"),
        ("{learning_rate: 0, decay: 0, segment_tokens: 64}", "learning_rate is 0: Input should be greater than 0"),
        ("{learning_rate: 0.1, decay: 1, segment_tokens: 64}", "decay is 1: Input should be less than 1"),
        (
            "{learning_rate: 0.1, decay: 0, segment_tokens: 1000}",
            "segment_tokens is 1000: Input should be less than or",
        ),
        (
            "{learning_rate: 0.1, decay: 0, segment_token: 64}",
            "unknown key dynamic_evaluation.segment_token. Did you mean",
        ),
        ("true", "is True: Input should be an object with the keys learning_rate, decay, segment_tokens"),
    ],
)
def test_a_policy_that_is_wrong_is_refused_in_one_line(stories: Path, settings: str, said: str):
    stories.write_text(re.sub("dynamic_evaluation: .*", f"dynamic_evaluation: {settings}", stories.read_text()))
    with pytest.raises(UsageError) as caught:
        load_task(str(stories))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_policy_that_does_not_fit_is_refused_with_what_to_leave_out(stories: Path):
    save_tokenizer(make_writer(stories.parent / "plain"), WIKI)
    with pytest.raises(UsageError, match=r"has no neural_cache_size; leave context out of its file\.$"):
        evaluate(stories.parent / "plain", str(stories), progress=False)
    pages = stories.read_text().replace("modelling-stream", "modelling-pages")
    stories.write_text(pages)
    with pytest.raises(
        UsageError, match=r"yaml: dynamic_evaluation goes with .*; leave it out with language-.*-pages\.$"
    ):
        load_task(str(stories))


def test_a_text_without_titles_has_no_pages(stories: Path):
    task_file = yaml.safe_load(stories.read_text()) | {"problem": "language-modelling-pages"}
    stories.write_text(yaml.safe_dump({key: task_file[key] for key in ("name", "title", "problem", "data")}))
    folder = stories.parent / "stories"
    pq.write_table(pa.table({"text": ["One line.", "Another."]}), folder / "test.parquet")
    (folder / "dataset.yaml").write_text(yaml.safe_dump(describe(folder)))
    with pytest.raises(DataError, match=r"stories \(test\) has no page: expected a title"):
        evaluate(stories.parent / "writer", str(stories), progress=False)


@pytest.mark.parametrize("labels", [None, [0, 1]])
def test_a_text_is_one_text_in_its_order_only(
    stories: Path, results: Path, labels: list[int] | None, capsys: pytest.CaptureFixture[str]
):
    words = ["eval", str(stories.parent / "writer"), "--task", str(stories), "--results", str(results)]
    beside = {} if labels is None else {"label": labels * (len(WIKI) // 2)}
    folder, figures = stories.parent / "stories", []
    for rows in (WIKI, WIKI[::-1]):
        turn = slice(None, None, 1 if rows is WIKI else -1)
        pq.write_table(pa.table({"text": rows} | {k: v[turn] for k, v in beside.items()}), folder / "test.parquet")
        if figures:
            assert main(words) == 1
            told = "in another order, on which figures of a text depend. If it was changed on"
            assert told in capsys.readouterr().err
        (folder / "dataset.yaml").write_text(yaml.safe_dump(describe(folder)))
        assert main(words) == 0
        figures.append(read_result(next(results.rglob("stories.json"))))
    assert figures[0].data.digest == figures[1].data.digest
    assert figures[0].metrics != figures[1].metrics


def test_a_text_whose_order_is_not_described_is_refused(stories: Path):
    file = stories.parent / "stories" / "dataset.yaml"
    described = yaml.safe_load(file.read_text())
    del described["splits"]["test"]["order_digest"]
    file.write_text(yaml.safe_dump(described))
    with pytest.raises(
        DataError, match=r"dataset.yaml: split test has no order_digest, .* urzoo data digest .* prints"
    ):
        load_task(str(stories))
