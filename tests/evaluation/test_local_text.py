"""A user's own text as one stream or as pages, with the policies that its task file may name."""

import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from tests.evaluation.examples import WIKI, make_writer, save_tokenizer
from urzoo.cli import main
from urzoo.data import describe
from urzoo.errors import DataError, UsageError
from urzoo.evaluation import evaluate, load_task, read_result

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.usefixtures("no_local_data")


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
    with pytest.raises(DataError, match=r"stories \(test\) has no page: expected a line ' = Title = '"):
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
    with pytest.raises(DataError, match=r"dataset.yaml: split test has no order_digest, .* urzoo data digest .* adds"):
        load_task(str(stories))
