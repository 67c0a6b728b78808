"""Metrics with the interface of the `evaluate` library, defined here so that none is fetched from a network.

Each is a corpus-level figure over all samples at once, in double precision. To use one by itself:

    Accuracy(keep_in_memory=True).compute(predictions=[1, 0], references=[1, 1])
"""

import tempfile
from collections.abc import Mapping
from typing import Any

import datasets
import evaluate
import numpy as np
import numpy.typing as npt

Values = npt.NDArray[Any]
_WHOLE, _NUMBER = datasets.Value("int64"), datasets.Value("float64")


def _described(description: str, inputs: str, **features: Any) -> evaluate.MetricInfo:
    """What the library wants to know of a metric; `features` are the columns that it is given."""
    return evaluate.MetricInfo(
        description=description, citation="", inputs_description=inputs, features=datasets.Features(features)
    )


class Accuracy(evaluate.Metric):  # type: ignore[misc]
    """The fraction of samples whose predicted class is the reference class."""

    def _info(self) -> evaluate.MetricInfo:
        return _described(
            "Fraction of predictions that equal their reference.",
            "predictions and references: class numbers.",
            predictions=_WHOLE,
            references=_WHOLE,
        )

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        return {"accuracy": float(np.mean(np.asarray(predictions) == np.asarray(references)))}


class CrossEntropy(evaluate.Metric):  # type: ignore[misc]
    """The mean negative log-probability of the reference class, in nats."""

    def _info(self) -> evaluate.MetricInfo:
        return _described(
            "Mean negative natural logarithm of the probability of the reference class.",
            "predictions: one score per class (logits); references: class numbers.",
            predictions=datasets.List(_NUMBER),
            references=_WHOLE,
        )

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        return {"cross_entropy": float(-np.mean(log_probabilities(np.asarray(predictions), np.asarray(references))))}


class MeanSquaredError(evaluate.Metric):  # type: ignore[misc]
    """The mean of the squared differences."""

    def _info(self) -> evaluate.MetricInfo:
        return _described(
            "Mean squared difference of predictions and references.",
            "predictions and references: numbers.",
            predictions=_NUMBER,
            references=_NUMBER,
        )

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        return {"mean_squared_error": float(np.mean((np.asarray(predictions) - np.asarray(references)) ** 2))}


class Perplexity(evaluate.Metric):  # type: ignore[misc]
    """The exponential of the negative log-probability for each unit, over a whole corpus.

    Sums over all samples are divided, not the samples' perplexities averaged.
    """

    def _info(self) -> evaluate.MetricInfo:
        return _described(
            "exp(-(sum of predictions) / (sum of references)).",
            "predictions: log-probability of each sample in nats; references: its units (words).",
            predictions=_NUMBER,
            references=_WHOLE,
        )

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        with np.errstate(over="ignore"):  # infinite is what it is; whose figure it is refuses it by name
            return {"perplexity": float(np.exp(-np.sum(np.asarray(predictions)) / np.sum(np.asarray(references))))}


class BitsPerUnit(evaluate.Metric):  # type: ignore[misc]
    """The negative log-probability in bits for each unit, over a whole corpus."""

    def _info(self) -> evaluate.MetricInfo:
        return _described(
            "-(sum of predictions) / (sum of references) / ln 2.",
            "predictions: log-probability of each sample in nats; references: its units (bytes).",
            predictions=_NUMBER,
            references=_WHOLE,
        )

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        return {"bits": float(-np.sum(np.asarray(predictions)) / np.sum(np.asarray(references)) / np.log(2))}


def log_probabilities(logits: Values, references: Values) -> npt.NDArray[np.float64]:
    """The log-probability of each reference class, `(samples,)`, from scores `(samples, classes)`, in nats."""
    scores = logits.astype(np.float64)
    top = scores.max(axis=1)
    normaliser = top + np.log(np.exp(scores - top[:, None]).sum(axis=1))
    chosen: npt.NDArray[np.float64] = scores[np.arange(len(scores)), references] - normaliser
    return chosen


def computed(metric: type[evaluate.Metric], **columns: Values) -> dict[str, float]:
    """What `metric` gives for whole columns, without leaving files behind."""
    # The library makes a folder for each metric even where it keeps everything in memory.
    with tempfile.TemporaryDirectory() as folder:
        figures: Mapping[str, float] = metric(keep_in_memory=True, cache_dir=folder).compute(**columns)
    return dict(figures)
