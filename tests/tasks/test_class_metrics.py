"""Metrics of classes: hand-computed values, sklearn's own results, and every edge that a diverged model can reach."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import scipy.special
import sklearn.metrics
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from rankopt.tasks.metrics import METRICS


@pytest.fixture(autouse=True)
def no_warnings() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def binary_pairs() -> st.SearchStrategy[tuple[NDArray[Any], NDArray[Any]]]:
    rows = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=40)
    return rows.map(lambda pairs: (np.array([p for p, _ in pairs]), np.array([y for _, y in pairs])))


def class_tables() -> st.SearchStrategy[tuple[NDArray[Any], NDArray[Any]]]:
    number = st.integers(-4, 4)
    rows = st.lists(st.tuples(number, number, number, st.integers(0, 2)), min_size=1, max_size=30)
    return rows.map(lambda rows: (np.array([row[:3] for row in rows], float), np.array([row[3] for row in rows])))


def test_hand_computed_values() -> None:
    predictions, references = np.array([1, 1, 1, 0, 0, 0]), np.array([1, 1, 0, 1, 0, 0])  # tp 2, fp 1, fn 1, tn 2
    assert METRICS["accuracy"](predictions, references) == pytest.approx(4 / 6)
    assert METRICS["f1"](predictions, references) == pytest.approx(4 / 6)
    assert METRICS["matthews"](predictions, references) == pytest.approx((2 * 2 - 1 * 1) / 9)


@given(binary_pairs())
def test_class_metrics_are_sklearns(pair: tuple[NDArray[Any], NDArray[Any]]) -> None:
    predictions, references = pair
    assert METRICS["accuracy"](*pair) == pytest.approx(sklearn.metrics.accuracy_score(references, predictions))
    assert METRICS["f1"](*pair) == pytest.approx(sklearn.metrics.f1_score(references, predictions, zero_division=0.0))
    if len(set(predictions)) == len(set(references)) == 2:
        reference = sklearn.metrics.matthews_corrcoef(references, predictions)
        assert METRICS["matthews"](*pair) == pytest.approx(reference)
        assert METRICS["matthews"](*pair) == pytest.approx(np.corrcoef(predictions, references)[0, 1])
    else:
        assert METRICS["matthews"](*pair) == 0.0


@pytest.mark.parametrize("value", [0, 1])
def test_a_constant_labelling_correlates_with_nothing(value: int) -> None:
    constant = np.full(7, value)
    assert METRICS["matthews"](constant, np.arange(7) % 2) == 0.0
    assert METRICS["matthews"](np.arange(7) % 2, constant) == 0.0
    assert METRICS["matthews"](constant, constant) == 0.0


def test_one_class_only() -> None:
    zeros, ones = np.zeros(4, dtype=int), np.ones(4, dtype=int)
    assert METRICS["f1"](zeros, zeros) == 0.0
    assert METRICS["f1"](ones, ones) == METRICS["accuracy"](zeros, zeros) == 1.0


def test_three_classes() -> None:
    predictions, references = np.array([0, 1, 2, 2]), np.array([0, 1, 1, 2])
    assert METRICS["accuracy"](predictions, references) == 0.75
    assert METRICS["matthews"](predictions, references) == pytest.approx(
        sklearn.metrics.matthews_corrcoef(references, predictions)
    )


@given(class_tables())
def test_metrics_of_several_classes_are_sklearns(table: tuple[NDArray[Any], NDArray[Any]]) -> None:
    logits, references = table
    predictions = logits.argmax(axis=1)
    for average in ("macro", "weighted"):
        expected = sklearn.metrics.f1_score(references, predictions, average=average, zero_division=0.0)
        assert METRICS[f"{average}_f1"](predictions, references) == pytest.approx(expected)
    if len(set(references)) == 3:
        probabilities = scipy.special.softmax(logits, axis=1)
        expected = sklearn.metrics.roc_auc_score(references, probabilities, multi_class="ovr")
        assert METRICS["roc_auc"](logits, references) == pytest.approx(expected)


@given(class_tables())
def test_roc_auc_of_two_classes_is_sklearns(table: tuple[NDArray[Any], NDArray[Any]]) -> None:
    """That of the second class; chance where a split has one class."""
    logits, references = table[0][:, :2], table[1] % 2
    if len(set(references)) == 2:
        expected = sklearn.metrics.roc_auc_score(references, logits[:, 1] - logits[:, 0])
        assert METRICS["roc_auc"](logits, references) == pytest.approx(expected)
    else:
        assert METRICS["roc_auc"](logits, references) == 0.5


def test_roc_auc_leaves_absent_classes_out() -> None:
    logits = np.array([[2.0, 0.0, 0.0], [0.0, 2.0, 0.0], [2.0, 1.0, 0.0]])
    assert METRICS["roc_auc"](logits, np.array([0, 1, 0])) == 1.0
    assert METRICS["roc_auc"](logits, np.array([1, 1, 1])) == 0.5
    for wrong in (logits[:2], logits[0], logits * np.nan):
        with pytest.raises(ValueError, match=r"roc_auc needs"):
            METRICS["roc_auc"](wrong, np.array([0, 1, 0]))
