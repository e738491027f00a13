"""Statistics over few seeds: means, confidence intervals, paired t-tests and the smallest detectable difference."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from scipy import optimize, special, stats

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


class Difference(NamedTuple):
    """A paired comparison: mean difference, confidence interval, p-value and smallest detectable difference."""

    n: int
    mean: float
    low: float
    high: float
    p: float
    detectable: float


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
    reach = float(stats.t.ppf((1 + level) / 2, n - 1)) * error
    return Summary(n, mean, error, mean - reach, mean + reach)


def paired(differences: Sequence[float], level: float = 0.95) -> Difference:
    """Paired t-test of differences within a seed, task and budget.

        t = mean(d) / (sd(d) / sqrt(n)),    p = 2 P(T_{n-1} > |t|)

    Args:
        differences: allocator minus control, one per shared seed.
        level: confidence level, also of the smallest detectable difference (two-sided).
    Returns:
        p is NaN with fewer than two seeds, and where the difference is the same at every seed.
    Example:
        >>> result = paired([0.02, 0.01, 0.03])
        >>> result.n, round(result.mean, 3), round(result.p, 4)
        (3, 0.02, 0.0742)

    Source: Student 1908; pairing by seed uses common random numbers.
    """
    n, mean, error, low, high = summarize(differences, level)
    if not error > SAME:
        return Difference(n, mean, low, high, NAN, NAN)
    p = float(2 * stats.t.sf(abs(mean) / error, n - 1))
    return Difference(n, mean, low, high, p, smallest_difference(error * math.sqrt(n), n, alpha=1 - level))


def smallest_difference(sd: float, n: int, power: float = 0.8, alpha: float = 0.05) -> float:
    """The smallest true difference that a two-sided paired t-test over n seeds detects with the given power.

    Solves for d, with T' the noncentral t distribution and c = t(n - 1, 1 - alpha / 2):

        P(|T'_{n-1}(d sqrt(n) / sd)| > c) = power

    Args:
        sd: standard deviation of the differences (itself uncertain when estimated from few seeds).
        n: number of shared seeds.
        power: probability of detecting the difference.
        alpha: probability of a false positive.
    Returns:
        NaN with fewer than two seeds.
    Example:
        >>> [round(smallest_difference(0.01, n), 4) for n in (1, 2, 5, 20)]
        [nan, 0.1155, 0.0168, 0.0066]

    Source: Cohen 1988, Statistical power analysis for the behavioral sciences, ch. 2.
    """
    return _shift(n, power, alpha) * sd / math.sqrt(n) if n > 1 else NAN


@cache
def _shift(n: int, power: float, alpha: float) -> float:
    critical = float(stats.t.ppf(1 - alpha / 2, n - 1))
    # T' = (z + shift) / s with s^2 ~ chi2(n - 1) / (n - 1). Given s it is normal, so the power is a mean over quantiles
    # of s. scipy.stats.nct is NaN in the far tail, which the root finder reaches.
    nodes, weights = np.polynomial.legendre.leggauss(400)
    s = np.sqrt(stats.chi2.ppf((nodes + 1) / 2, n - 1) / (n - 1))

    def missing(shift: float) -> float:
        found = special.ndtr(shift - critical * s) + special.ndtr(-shift - critical * s)
        return float(weights @ found) / 2 - power

    return float(optimize.brentq(missing, 0.0, 10 * (critical + 1)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment of a family of p-values.

        p~_(i) = max_{j <= i} min(1, (m - j + 1) p_(j)),    p_(1) <= ... <= p_(m)

    Args:
        p_values: one per comparison; NaN (not tested) stays NaN and is not counted in m.
    Returns:
        Adjusted p-values in the given order.
    Example:
        >>> holm([0.01, 0.04, float("nan"), 0.03])
        [0.03, 0.06, nan, 0.06]

    Source: Holm 1979, A simple sequentially rejective multiple test procedure.
    """
    adjusted = [NAN] * len(p_values)
    order = sorted((index for index, p in enumerate(p_values) if not math.isnan(p)), key=lambda index: p_values[index])
    highest = 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted
