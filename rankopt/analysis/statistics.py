"""Statistics over few seeds: means with intervals, the power of t-tests, and Holm's correction."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special  # not scipy.stats, which takes half a second to import

NAN = float("nan")
SAME = 1e-12
"""Scores that differ by less are equal; a smaller standard error is rounding, so no test is made."""


class Summary(NamedTuple):
    """Size, mean, standard error and confidence interval of a sample; NaN where it has too few values."""

    n: int
    mean: float
    error: float
    low: float
    high: float


def summarize(values: Sequence[float], level: float = 0.95) -> Summary:
    """Mean, standard error and t-interval of a sample.

        error = sd / sqrt(n),    low, high = mean -+ t(n - 1, (1 + level) / 2) error

    with `sd` the sample standard deviation (n - 1 in the denominator).

    Args:
        values: one number per seed.
        level: confidence level.
    Returns:
        With one value the error and the interval are NaN; with none the mean is too.
    Example:
        >>> [round(value, 4) for value in summarize([0.5, 0.7])]
        [2, 0.6, 0.1, -0.6706, 1.8706]

    Source: Student 1908, The probable error of a mean.
    """
    sample = np.asarray(values, dtype=float)
    n = len(sample)
    if n == 0:
        return Summary(0, NAN, NAN, NAN, NAN)
    mean = float(sample.mean())
    if n == 1:
        return Summary(1, mean, NAN, NAN, NAN)
    error = float(sample.std(ddof=1)) / math.sqrt(n)
    reach = float(special.stdtrit(n - 1, (1 + level) / 2)) * error
    return Summary(n, mean, error, mean - reach, mean + reach)


def power_shift(df: float, power: float = 0.8, alpha: float = 0.05) -> float:
    """The true mean, in standard errors, that a two-sided t-test detects with the given power.

    Solves for delta, with T' the noncentral t distribution and c = t(df, 1 - alpha / 2):

        P(|T'_df(delta)| > c) = power

    Args:
        df: degrees of freedom of the standard error.
        power: probability of detecting the mean.
        alpha: probability of a false positive.
    Example:
        >>> [round(power_shift(df), 3) for df in (1, 4, 19)]
        [16.334, 3.761, 2.954]

    Source: Cohen 1988, Statistical power analysis for the behavioral sciences, ch. 2.
    """
    return _shift(round(df, 1) if df < 20 else round(df), power, alpha)  # few values, each found once


@cache
def _shift(df: float, power: float, alpha: float) -> float:
    critical = float(special.stdtrit(df, 1 - alpha / 2))
    # T' = (z + shift) / s with s^2 ~ chi2(df) / df. Given s it is normal, so the power is a mean over quantiles of s.
    # scipy.stats.nct is NaN in the far tail, which the root finder reaches.
    nodes, weights = _nodes()
    s = np.sqrt(special.chdtri(df, (1 - nodes) / 2) / df)

    def missing(shift: float) -> float:
        found = special.ndtr(shift - critical * s) + special.ndtr(-shift - critical * s)
        return float(weights @ found) / 2 - power

    return float(optimize.brentq(missing, 0.0, 10 * (critical + 1)))


@cache
def _nodes() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    nodes, weights = np.polynomial.legendre.leggauss(400)
    return nodes, weights


def spread_interval(df: float, level: float = 0.95) -> tuple[float, float]:
    """The interval of a standard deviation, divided by its estimate: it is uncertain with few degrees of freedom.

        sqrt(df / chi2(df, (1 + level) / 2)),    sqrt(df / chi2(df, (1 - level) / 2))

    Example:
        >>> [round(factor, 2) for factor in spread_interval(4)]
        [0.6, 2.87]
    """
    low, high = special.chdtri(df, [(1 - level) / 2, (1 + level) / 2])
    return math.sqrt(df / low), math.sqrt(df / high)


class Step(NamedTuple):
    """A test in a family: its adjusted p-value, and the level at which Holm's procedure tested it."""

    p: float
    level: float


def holm(p_values: Sequence[float], alpha: float = 0.05, weights: Sequence[float] | None = None) -> list[Step]:
    """Holm's step-down procedure for a family of tests, which may share the error rate unequally.

        p~_(i) = max_{j <= i} min(1, W_j p_(j) / w_(j)),    W_j = w_(j) + ... + w_(m),    sorted by p / w

    A rejected test has the level at its own step, alpha w_(i) / W_i, and all others have the level at the first step
    that does not reject. An interval that inverts a test at its level excludes zero exactly where p~ <= alpha.

    Args:
        p_values: one per test; NaN (no test was possible) stays NaN and does not belong to the family.
        alpha: family-wise error rate.
        weights: the tests' shares of it, positive; equal ones by default.
    Returns:
        Adjusted p-values and levels in the given order. Without a p-value the level is that of the first step.
    Example:
        >>> [round(one.p, 3) for one in holm([0.01, 0.04, float("nan"), 0.03])]
        [0.03, 0.06, nan, 0.06]

    Source: Holm 1979, A simple sequentially rejective multiple test procedure, with its weights of section 4.
    """
    shares = [1.0] * len(p_values) if weights is None else list(weights)
    order = [index for index, p in enumerate(p_values) if not math.isnan(p)]
    order.sort(key=lambda index: p_values[index] / shares[index])
    remaining = sum(shares[index] for index in order) or sum(shares)
    tested = [Step(NAN, alpha * share / remaining) for share in shares]
    highest, failed_at = 0.0, NAN
    for index in order:
        highest = max(highest, min(1.0, remaining * p_values[index] / shares[index]))
        if highest > alpha and math.isnan(failed_at):
            failed_at = remaining
        total = remaining if math.isnan(failed_at) else failed_at
        tested[index] = Step(highest, alpha * shares[index] / total)
        remaining -= shares[index]
    return tested
