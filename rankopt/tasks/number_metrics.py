"""Metrics of numbers: correlations and squared errors."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def pearson(predictions: Array, references: Array) -> float:
    """Linear correlation `cov(p, y) / (std(p) std(y))`; 0 when either side is constant.

    Args:
        predictions: (n,) numbers.
        references: (n,) numbers.
    Returns:
        A number in [-1, 1].

    Example:
        >>> round(pearson(np.array([1.0, 2.0, 3.0]), np.array([2.0, 4.0, 6.0])), 12)
        1.0
        >>> pearson(np.ones(3), np.arange(3.0))
        0.0

    Source: Pearson, Proceedings of the Royal Society 58, 1895; on STS-B by Cer et al. 2017.
    """
    if _constant(predictions) or _constant(references):
        return 0.0
    from scipy.stats import pearsonr  # imported here because it is slow to import

    return float(pearsonr(predictions, references).statistic)


def spearman(predictions: Array, references: Array) -> float:
    """Pearson correlation of the two sides' ranks (ties share their mean rank); 0 when either side is constant.

    Args:
        predictions: (n,) numbers.
        references: (n,) numbers.
    Returns:
        A number in [-1, 1].

    Example:
        >>> round(spearman(np.array([1.0, 10.0, 100.0]), np.array([0.0, 1.0, 2.0])), 12)
        1.0

    Source: Spearman, The American Journal of Psychology 15, 1904; on STS-B by Wang et al. 2018.
    """
    if _constant(predictions) or _constant(references):
        return 0.0
    from scipy.stats import spearmanr  # imported here because it is slow to import

    return float(spearmanr(predictions, references).statistic)


def mse(predictions: Array, references: Array) -> float:
    """Mean squared error; lower is better.

    Args:
        predictions: (n,) numbers.
        references: (n,) numbers.

    Example:
        >>> mse(np.array([1.0, 2.0]), np.array([1.0, 4.0]))
        2.0
    """
    from sklearn.metrics import mean_squared_error  # imported here because it is slow to import

    return float(mean_squared_error(references, predictions))


def r2(predictions: Array, references: Array) -> float:
    """Share of the references' variance that is explained, `1 - sum((p - y)^2) / sum((y - mean(y))^2)`.

    Constant references give 1 where they are predicted exactly, else 0; so does a single example.

    Args:
        predictions: (n,) numbers.
        references: (n,) numbers.
    Returns:
        A number of at most 1; negative where the mean of the references would be a better prediction.

    Example:
        >>> r2(np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 3.0]))
        1.0
    """
    if len(references) < 2:
        return float(np.array_equal(predictions, references))
    from sklearn.metrics import r2_score  # imported here because it is slow to import

    return float(r2_score(references, predictions))


def _constant(values: Array) -> bool:
    """Whether values differ by rounding only, by scipy's own limit for a near-constant input."""
    spread = math.sqrt(float(np.sum((values - values.mean()) ** 2)))
    return spread <= 1e-13 * abs(float(values.mean()))
