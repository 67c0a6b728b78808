"""Two models on the same rows: whether they differ by more than chance, and on which rows.

Rows are compared one by one, which tells smaller differences apart than two intervals side by side can. Classes are
compared by McNemar's exact test on the rows where only one model is right; other figures by a randomization test, for
which the two models' values of a row are swapped at random.
"""

import glob
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from urzoo.data.generate import COPIED
from urzoo.errors import ResultError, UsageError, unknown
from urzoo.evaluation.intervals import FEWEST
from urzoo.evaluation.predictions import Predictions, predictions_path, read_predictions
from urzoo.evaluation.schema import Interval, folder_name, plain_name, result_path
from urzoo.evaluation.task import load_task

Values = npt.NDArray[Any]
_RESAMPLES, _PORTION = 2_000, 100
# Neighbouring lines of a stream depend on each other; they are drawn together.
_BLOCK = 64


@dataclass(frozen=True)
class Comparison:
    """What telling two models apart on a task gives.

    Attributes:
        task: The task's name.
        models: The two models' names.
        figures: The primary metric of each over the rows compared, in its stored unit.
        difference: The second model's figure less the first's: an interval around it, None where the rows are too few.
        p_value: How often a difference this large would show, were the two equally good (two-sided).
        test: The name of the test.
        rows: How many rows were compared.
        differing: The rows on which only one is right or, where there are no classes, on which they differ most.
        only_first_right: For classes, on how many rows only the first model is right; else None.
        only_second_right: The same of the second.
    """

    task: str
    models: tuple[str, str]
    figures: tuple[float, float]
    difference: Interval | None
    p_value: float
    test: str
    rows: int
    differing: list[int]
    only_first_right: int | None
    only_second_right: int | None


def compare(results: Path, first: str, second: str, task: str) -> Comparison:
    """Compare two models by the predictions that were saved with their results.

    Args:
        results: The folder of results.
        first: A model's name as results have it; without the digits of its digest where that leaves no doubt.
        second: Another's.
        task: The task both were evaluated on.

    Raises:
        UsageError: The task or a model is unknown, or a name stands for several models.
        ResultError: Predictions are missing, damaged, or of different data or task versions.
    """
    task = load_task(task).name
    one, other = (read_predictions(_place(results, name, task)) for name in (first, second))
    for key, values in {
        "versions of the task": (one.result.task, other.result.task),
        "data": (one.result.data.digest, other.result.data.digest),
    }.items():
        if values[0] != values[1]:
            raise ResultError(f"{first} and {second} were evaluated on different {key}; evaluate them again.")
    rows = np.intersect1d(one.columns["row"], other.columns["row"])
    if not len(rows):
        raise ResultError(f"{first} and {second} were evaluated on different rows of {task}.")
    columns = (columns_at(one, rows), columns_at(other, rows))
    otherwise = f"the rows of {task} were in another order for {first} than for {second}"
    if None not in (one.order_digest, other.order_digest) and one.order_digest != other.order_digest:
        raise ResultError(f"{otherwise}; evaluate again.")
    refuse_other_order(columns, otherwise)
    names = (first, second)
    if {"label", "prediction", "label_log_probability"} <= set(columns[0]):
        return _classes(task, names, rows, columns)
    return _figures(task, names, rows, columns)


def refuse_other_order(columns: tuple[Mapping[str, Values], Mapping[str, Values]], what: str) -> None:
    """Refuse predictions of which a row's number is another row for one than for the other; `what` says so in words.

    The digest of the data does not tell: it does not depend on the order. That of their order is not in every file.

    Raises:
        ResultError: What the data themselves say of a row differs.
    """
    for name in {"label", "words"} & set(columns[0]) & set(columns[1]):
        if not np.array_equal(columns[0][name], columns[1][name]):
            raise ResultError(f"{what}; evaluate again.")


def _place(results: Path, model: str, task: str) -> Path:
    """The predictions of `model`, which may lack the digits of its digest."""
    path = predictions_path(results, model, task)
    found = sorted(results.glob(f"{glob.escape(folder_name(model))}+*/{path.name}"))
    if path.exists():
        return path
    if not found:
        known = sorted(folder.name for folder in results.iterdir() if folder.is_dir())
        if plain_name(path.parent.name) not in map(plain_name, known):
            raise UsageError(unknown("model", model, known))
        # What is missing is named where it would be written.
        result = result_path(results, model, task).name
        evaluated = sorted(results.glob(f"{glob.escape(folder_name(model))}+*/{result}"))
        return evaluated[0].with_name(path.name) if evaluated else path
    if len(found) > 1:
        names = ", ".join(path.parent.name for path in found)
        raise UsageError(f"{model!r} is the name of {len(found)} models with results on {task}: {names}; give one.")
    return found[0]


def mcnemar(only_first: int, only_second: int) -> float:
    """The exact two-sided p-value of McNemar's test, from the rows on which only one of two is right."""
    total = only_first + only_second
    if total == 0:
        return 1.0
    # One binomial coefficient after the other: each by itself would take minutes for some thousands of rows.
    tail = coefficient = 1
    for k in range(min(only_first, only_second)):
        coefficient = coefficient * (total - k) // (k + 1)
        tail += coefficient
    return min(1.0, float(2 * tail / 2**total))


def _classes(task: str, names: tuple[str, str], rows: Values, columns: tuple[Any, Any]) -> Comparison:
    right = [part["label"] == part["prediction"] for part in columns]
    only_first, only_second = int((right[0] & ~right[1]).sum()), int((~right[0] & right[1]).sum())
    sums = [*(part.astype(np.float64) for part in right), np.ones(len(rows))]
    return Comparison(
        task=task,
        models=names,
        figures=(float(right[0].mean()), float(right[1].mean())),
        difference=_interval(sums, np.positive, 1),
        p_value=mcnemar(only_first, only_second),
        test="exact McNemar test",
        rows=len(rows),
        differing=rows[right[0] != right[1]].tolist(),
        only_first_right=only_first,
        only_second_right=only_second,
    )


def _figures(task: str, names: tuple[str, str], rows: Values, columns: tuple[Any, Any]) -> Comparison:
    losses, units, figure = _losses(columns)
    block = _BLOCK if load_task(task).problem == "language-modelling-stream" else 1
    starts = np.arange(0, len(rows), block)
    # The last block may have fewer rows.
    sums = [np.add.reduceat(values, starts) for values in (*losses, units)]
    whole = [float(figure(loss.sum() / units.sum())) for loss in losses]
    apart = np.abs(losses[1] - losses[0])
    order = np.argsort(-apart, kind="stable")
    return Comparison(
        task=task,
        models=names,
        figures=(whole[0], whole[1]),
        difference=_interval(sums, figure, block),
        p_value=_swapped(sums, figure),
        test="paired randomization test",
        rows=len(rows),
        differing=rows[order[apart[order] > 0]].tolist(),
        only_first_right=None,
        only_second_right=None,
    )


def primary_figure(columns: Mapping[str, Values]) -> float:
    """The metric that ranks, of the rows in `columns`."""
    if "label_log_probability" in columns:
        return float((columns["label"] == columns["prediction"]).mean())
    (loss, _), units, figure = _losses((columns, columns))
    return float(figure(loss.sum() / units.sum()))


def _losses(columns: tuple[Any, Any]) -> tuple[list[Values], Values, Callable[[Any], Any]]:
    """What is summed for each row and model, over what, and the figure of the ratio of the sums."""
    units = np.ones(len(columns[0]["row"]))
    if "log_probability" in columns[0]:
        return [-part["log_probability"] for part in columns], columns[0]["words"].astype(np.float64), np.exp
    if "symbols_right" in columns[0]:
        return [part["symbols_right"] / COPIED for part in columns], units, np.positive
    return [(part["prediction"] - part["label"]) ** 2 for part in columns], units, np.positive


def columns_at(predictions: Predictions, rows: Values) -> dict[str, Values]:
    """The columns of the rows whose numbers are `rows`, in that order."""
    order = np.argsort(predictions.columns["row"], kind="stable")
    chosen = order[np.searchsorted(predictions.columns["row"], rows, sorter=order)]
    return {name: values[chosen] for name, values in predictions.columns.items()}


def _swapped(sums: list[Values], figure: Callable[[Any], Any]) -> float:
    """How often the figures lie as far apart where the two models' sums of a block are swapped by the toss of a coin.

    Args:
        sums: What is summed for each block: of the first model, of the second, and what both are divided by.
        figure: From the ratio of the sums to the figure.

    Source: Noreen 1989, Computer-Intensive Methods for Testing Hypotheses.
    """
    first, second, below = sums
    random, lead = np.random.RandomState(0), second - first

    def apart(moved: Any) -> Any:
        return np.abs(figure((second.sum() - moved) / below.sum()) - figure((first.sum() + moved) / below.sum()))

    # In portions, because all draws of 25,000 rows at once would take 400 MB. A hair less: all swapped is the same.
    least, found = apart(0.0) * (1 - 1e-9), 0
    for _ in range(_RESAMPLES // _PORTION):
        found += int((apart(random.randint(0, 2, (_PORTION, len(lead))) @ lead) >= least).sum())
    return (found + 1) / (_RESAMPLES + 1)


def _interval(sums: list[Values], figure: Callable[[Any], Any], block: int) -> Interval | None:
    """Around the second figure less the first, from many draws of as many blocks; `sums` as for `_swapped`."""
    first, second, below = sums
    if len(below) < FEWEST:
        return None
    random, parts = np.random.RandomState(0), []
    for _ in range(_RESAMPLES // _PORTION):
        drawn = random.randint(0, len(below), (_PORTION, len(below)))
        of = below[drawn].sum(axis=-1)
        parts.append(figure(second[drawn].sum(axis=-1) / of) - figure(first[drawn].sum(axis=-1) / of))
    low, high = np.quantile(np.concatenate(parts), [0.025, 0.975])
    return Interval(low=float(low), high=float(high), level=0.95, method=f"paired bootstrap, blocks of {block}")
