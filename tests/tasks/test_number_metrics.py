"""Metrics of numbers: hand-computed values, the libraries' own results, and constant sides."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import scipy.stats
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


def number_pairs() -> st.SearchStrategy[tuple[NDArray[Any], NDArray[Any]]]:
    # quarters are exact in binary, so a constant side is exactly constant
    rows = st.lists(st.tuples(st.integers(-8, 28), st.integers(0, 20)), min_size=1, max_size=40)
    return rows.map(lambda pairs: (np.array([p / 4 for p, _ in pairs]), np.array([y / 4 for _, y in pairs])))


def test_hand_computed_values() -> None:
    p, y = np.array([1.0, 2.0, 3.0, 10.0]), np.array([0.0, 2.0, 1.0, 3.0])
    assert METRICS["spearman"](p, y) == pytest.approx(1 - 6 * 2 / (4 * 15))  # squared rank differences 0, 1, 1, 0
    assert METRICS["pearson"](p, y) == pytest.approx(13 / np.sqrt(50 * 5))


@given(number_pairs())
def test_correlations_are_scipys(pair: tuple[NDArray[Any], NDArray[Any]]) -> None:
    if len(set(pair[0])) > 1 and len(set(pair[1])) > 1:
        assert METRICS["pearson"](*pair) == pytest.approx(scipy.stats.pearsonr(*pair).statistic)
        assert METRICS["spearman"](*pair) == pytest.approx(scipy.stats.spearmanr(*pair).statistic)
    else:
        assert METRICS["pearson"](*pair) == METRICS["spearman"](*pair) == 0.0


@given(number_pairs(), st.integers(0, 2**32 - 1))
def test_order_of_examples_does_not_matter(pair: tuple[NDArray[Any], NDArray[Any]], seed: int) -> None:
    order = np.random.RandomState(seed).permutation(len(pair[0]))
    for name in ("pearson", "spearman", "mse"):
        assert METRICS[name](pair[0][order], pair[1][order]) == pytest.approx(METRICS[name](*pair), abs=1e-9)


@pytest.mark.parametrize("name", ["pearson", "spearman"])
@pytest.mark.parametrize("value", [0, 1, 0.1])
def test_constant_predictions_correlate_with_nothing(name: str, value: float) -> None:
    constant = np.full(7, value)
    assert METRICS[name](constant, np.arange(7) % 2) == 0.0
    assert METRICS[name](np.arange(7) % 2, constant) == 0.0
    assert METRICS[name](constant, constant) == 0.0


def test_constant_up_to_rounding_is_constant() -> None:
    nearly = 3.0 + np.array([0.0, 0.0, 4e-16])
    assert METRICS["pearson"](nearly, np.arange(3.0)) == 0.0


@given(number_pairs())
def test_errors_of_numbers_are_sklearns(pair: tuple[NDArray[Any], NDArray[Any]]) -> None:
    predictions, references = pair
    assert METRICS["mse"](*pair) == pytest.approx(sklearn.metrics.mean_squared_error(references, predictions))
    if len(references) > 1:
        assert METRICS["r2"](*pair) == pytest.approx(sklearn.metrics.r2_score(references, predictions))
    else:
        assert METRICS["r2"](*pair) == float(predictions[0] == references[0])
