"""Paired comparisons: the tests' known values, and the rows that decide."""

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest

from tests.evaluation.conftest import name_of, pairs
from tests.evaluation.test_schema import RESULT
from urzoo.errors import ResultError, UsageError
from urzoo.evaluation import Settings, compare
from urzoo.evaluation.comparison import mcnemar
from urzoo.evaluation.predictions import predictions_path, write_predictions
from urzoo.evaluation.runner import Outcome
from urzoo.evaluation.schema import parse_result


def save(
    results: Path,
    name: str,
    columns: dict[str, np.ndarray],
    *,
    task: str = "smnist",
    digest: str = "d",
    subset: str | None = None,
    order: str | None = None,
) -> None:
    rows = len(columns["row"])
    content = {
        **RESULT,
        "model": {**RESULT["model"], "name": name},
        "task": {"name": task, "version": 1},
        "data": {**RESULT["data"], "rows": rows, "digest": digest * 64, "subset": subset},
        "samples": rows,
    }
    write_predictions(predictions_path(results, name, task), Outcome(parse_result(content, name), columns, order))


def classes(right: np.ndarray) -> dict[str, np.ndarray]:
    rows = np.arange(len(right))
    return {
        "row": rows,
        "label": rows % 5,
        "prediction": (rows + ~right) % 5,
        "label_log_probability": np.zeros(len(right)),
    }


@pytest.mark.parametrize(("first", "second"), [(0, 0), (1, 0), (5, 5), (3, 17), (40, 21), (200, 300), (6000, 6200)])
def test_mcnemar_is_the_binomial_test(first: int, second: int):
    expected = binomtest(first, first + second).pvalue if first + second else 1.0
    assert mcnemar(first, second) == pytest.approx(min(1.0, expected), rel=1e-9)
    assert mcnemar(second, first) == mcnemar(first, second)


def test_classes_are_compared_row_by_row(results: Path):
    random = np.random.RandomState(0)
    one, other = random.rand(500) < 0.8, random.rand(500) < 0.9
    save(results, "one", classes(one))
    shuffled = random.permutation(500)
    save(results, "other", {name: values[shuffled] for name, values in classes(other).items()})
    found = compare(results, "one", "other", "smnist")
    assert found.figures == (one.mean(), other.mean())
    assert (found.only_first_right, found.only_second_right) == ((one & ~other).sum(), (~one & other).sum())
    assert found.differing == np.flatnonzero(one != other).tolist()
    assert found.p_value == mcnemar(found.only_first_right, found.only_second_right)
    assert found.difference.low < other.mean() - one.mean() < found.difference.high


def test_a_model_does_not_differ_from_itself(results: Path):
    save(results, "one", classes(np.arange(50) % 3 > 0))
    found = compare(results, "one", "one", "smnist")
    assert (found.p_value, found.differing) == (1.0, [])


@pytest.mark.parametrize(("gap", "differs"), [(0.0, False), (0.05, True)])
def test_perplexities_are_compared_by_a_paired_test(results: Path, gap: float, differs: bool):
    random = np.random.RandomState(1)
    rows, words = np.arange(1000), random.randint(5, 30, 1000)
    common = -4.0 * words + random.normal(0, 5, 1000)
    for name, shift in (("one", 0.0), ("other", gap)):
        noise = random.normal(0, 0.2, 1000) * words**0.5
        columns = {"row": rows, "words": words, "log_probability": common + shift * words + noise}
        save(results, name, columns, task="wikitext103")
    found = compare(results, "one", "other", "wikitext103")
    assert found.test == "paired randomization test"
    assert found.figures[0] == pytest.approx(np.exp(4), rel=0.05)
    assert (found.p_value < 0.01) == differs
    assert (found.difference.high < 0) == differs


@pytest.mark.parametrize(("blocks", "p_value"), [(1, 1.0), (2, 0.5), (4, 0.125), (6, 0.03125)])
def test_few_blocks_prove_little(results: Path, blocks: int, p_value: float):
    """Each block is for the same model: of n blocks so many are by a chance of two in 2^n."""
    rows = np.arange(64 * blocks)
    words = np.random.RandomState(0).randint(5, 30, len(rows))
    for name, each in (("one", -4.0), ("other", -4.1)):
        save(results, name, {"row": rows, "words": words, "log_probability": each * words}, task="wikitext103")
    found = compare(results, "one", "other", "wikitext103")
    assert found.difference is None
    assert found.p_value == pytest.approx(p_value, rel=0.2)


def test_models_that_read_the_rows_in_other_ways_are_compared(results: Path):
    for name, subset in (("one", None), ("other", "the first 512 tokens of each text")):
        save(results, name, classes(np.ones(9, dtype=bool)), subset=subset)
    assert compare(results, "one", "other", "smnist").rows == 9


def test_a_last_block_of_few_rows_weighs_as_few(results: Path):
    """Twenty blocks of 64 lines and one of a single line, the only one where the two models differ."""
    rows, words = np.arange(1281), np.full(1281, 10)
    for name, last in (("one", -40.0), ("other", -41.0)):
        values = np.where(rows < 1280, -40.0, last)
        save(results, name, {"row": rows, "words": words, "log_probability": values}, task="wikitext103")
    found = compare(results, "one", "other", "wikitext103")
    # That line is drawn three times or fewer in 97.5 % of the draws, and with it 18 of the long blocks.
    assert found.difference.high == pytest.approx(np.exp(4 + 3 / 10 / (18 * 64 + 3)) - np.exp(4), rel=1e-6)
    assert found.difference.low == pytest.approx(0, abs=1e-9)


def test_rows_in_another_order_are_not_paired(results: Path):
    save(results, "one", classes(np.ones(50, dtype=bool)))
    turned = classes(np.ones(50, dtype=bool))
    save(results, "other", {**turned, "label": turned["label"][::-1], "prediction": turned["prediction"][::-1]})
    with pytest.raises(ResultError, match=r"the rows of smnist were in another order for one than for other"):
        compare(results, "one", "other", "smnist")


def test_rows_in_another_order_within_their_classes_are_not_paired(results: Path):
    one = classes(np.ones(50, dtype=bool))
    for name, order in (("one", "a"), ("other", "b"), ("same", "a"), ("older", None)):
        save(results, name, one, order=order)
    with pytest.raises(ResultError, match=r"the rows of smnist were in another order for one than for other"):
        compare(results, "one", "other", "smnist")
    for name in ("same", "older"):
        assert compare(results, "one", name, "smnist").rows == 50


def test_sums_are_compared_by_their_errors(results: Path):
    rows = np.arange(200)
    label = np.random.RandomState(0).rand(200)
    save(results, "one", {"row": rows, "label": label, "prediction": label + 0.1}, task="adding")
    save(results, "other", {"row": rows, "label": label, "prediction": label + 0.2}, task="adding")
    found = compare(results, "one", "other", "adding")
    assert found.figures == pytest.approx((0.01, 0.04))
    assert found.p_value < 0.01


def test_real_predictions_are_compared(raster: Path, results: Path):
    pairs([raster], ["smnist"], results=results, settings=Settings(limit=20), save_predictions=True)
    assert compare(results, name_of(raster), name_of(raster), "smnist").rows == 20
    assert compare(results, "raster-8", name_of(raster), "smnist").rows == 20


def test_a_name_may_lack_its_digits_where_that_leaves_no_doubt(results: Path):
    for name in ("one", "other+12345678"):
        save(results, name, classes(np.ones(9, dtype=bool)))
    assert compare(results, "one", "other", "smnist").rows == 9
    save(results, "other+9abcdef0", classes(np.ones(9, dtype=bool)))
    with pytest.raises(UsageError, match=r"'other' is the name of 2 models .*: other\+12345678, other\+9abcdef0"):
        compare(results, "one", "other", "smnist")


def test_what_cannot_be_compared_is_refused(results: Path):
    right = np.ones(9, dtype=bool)
    save(results, "one", classes(right))
    save(results, "other", classes(right), digest="e")
    with pytest.raises(ResultError, match="different data"):
        compare(results, "one", "other", "smnist")
    save(results, "other", {**classes(right), "row": np.arange(100, 109)})
    with pytest.raises(ResultError, match="different rows"):
        compare(results, "one", "other", "smnist")
    with pytest.raises(UsageError, match=r"unknown model 'nobody'.* Available: one, other"):
        compare(results, "one", "nobody", "smnist")
    (results / "other" / "smnist.predictions.parquet").rename(results / "aside")
    with pytest.raises(ResultError, match="evaluate with --save-predictions first"):
        compare(results, "one", "other", "smnist")
    with pytest.raises(UsageError, match="unknown task 'smnits'"):
        compare(results, "one", "other", "smnits")
    (results / "other").rename(results / "other+12345678")
    (results / "other+12345678" / "smnist.json").write_text("{}")
    with pytest.raises(ResultError, match=r"there is no .*other\+12345678/smnist.predictions.parquet; evaluate with"):
        compare(results, "one", "other", "smnist")
    predictions_path(results, "one", "smnist").write_bytes(b"PAR1")
    with pytest.raises(ResultError, match="is damaged"):
        compare(results, "one", "other", "smnist")
