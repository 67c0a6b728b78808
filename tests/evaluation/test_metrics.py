"""Metrics equal scikit-learn's, intervals equal their formula's properties."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, log_loss

from urzoo.evaluation.intervals import wilson
from urzoo.evaluation.metrics import Accuracy, CrossEntropy, computed, log_probabilities


@pytest.mark.parametrize("samples", [1, 7, 500])
def test_accuracy_is_scikit_learns(samples: int):
    random = np.random.RandomState(samples)
    predictions, references = random.randint(0, 4, (2, samples))
    found = computed(Accuracy, predictions=predictions, references=references)
    assert found == {"accuracy": accuracy_score(references, predictions)}


@pytest.mark.parametrize("samples", [1, 7, 500])
def test_cross_entropy_is_scikit_learns(samples: int):
    random = np.random.RandomState(samples)
    scores = random.normal(size=(samples, 5)).astype(np.float32) * 3
    references = random.randint(0, 5, samples)
    probabilities = np.exp(scores.astype(np.float64))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    expected = log_loss(references, probabilities, labels=range(5))
    found = computed(CrossEntropy, predictions=scores, references=references)
    assert found["cross_entropy"] == pytest.approx(expected, rel=1e-12)


def test_large_scores_do_not_overflow():
    scores = np.array([[1e30, 0.0], [-1e30, 1e30]], dtype=np.float64)
    assert log_probabilities(scores, np.array([0, 1])).tolist() == [0.0, 0.0]


def test_metrics_add_up_batch_by_batch(tmp_path):
    metric = Accuracy(keep_in_memory=True, cache_dir=str(tmp_path))
    metric.add_batch(predictions=[1, 0], references=[1, 1])
    metric.add_batch(predictions=[2], references=[2])
    assert metric.compute() == {"accuracy": 2 / 3}


def test_wilson_gives_the_value_of_the_literature():
    # Newcombe 1998, table I: 81 of 263, 0.2553 to 0.3662.
    interval = wilson(81, 263)
    assert interval.low == pytest.approx(0.2553, abs=5e-5)
    assert interval.high == pytest.approx(0.3662, abs=5e-5)


@given(st.integers(1, 100_000), st.data())
def test_wilson_holds_the_proportion_and_stays_between_0_and_1(samples: int, data: st.DataObject):
    successes = data.draw(st.integers(0, samples))
    interval = wilson(successes, samples)
    assert 0 <= interval.low <= successes / samples <= interval.high <= 1
    assert interval.low < interval.high
    mirror = wilson(samples - successes, samples)
    assert mirror.low == pytest.approx(1 - interval.high, abs=1e-12)
