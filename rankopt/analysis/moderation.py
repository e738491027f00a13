"""Variances of several methods, each moved towards what they have in common: few seeds say little about each alone."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

from rankopt.analysis.statistics import SAME

A = TypeVar("A", bound=Hashable)
Floats = NDArray[np.float64]

DOUBT = 0.05
"""The spread of the variances is taken at its upper bound, which it exceeds with this probability."""
FLOOR = 1e-5
"""Smaller shares of the median variance count as this share, so that a variance of zero has a logarithm."""


class Variance(NamedTuple):
    """An estimated variance and its degrees of freedom."""

    value: float
    df: float


def moderated(differences: Mapping[A, Mapping[int, float]]) -> dict[A, Variance]:
    """The variance of every method's differences to one control, estimated with those of the others.

    A difference d_ks of method k at seed s has the noise of both sides. Without means of methods and of seeds, the
    control as a method with d = 0, what is left has the noise of one side:

        r_ks = d_ks - mean_k(d_ks) - mean_s(d_ks - mean_k(d_ks)),    v_k = K / (K - 1) sum_s r_ks^2 / (n_k - 1)

    K counts the methods and the control. As if the true variances had a scaled inverse chi-squared distribution around
    v_0 with d_0 degrees of freedom,

        w_k = (d_0 v_0 + (n_k - 1) v_k) / (d_0 + n_k - 1),    Var(d_k) = w_k + w_control,    df = d_0 + n_k - 1

    d_0 and v_0 fit the mean and the spread of the log v_k. Similar variances give a large d_0, up to one common
    variance; unequal ones leave each method its own. df is at most the number of differences less that of methods.

    Args:
        differences: method -> seed -> difference, of one task; methods with a single seed have no variance.
    Returns:
        Those with at least two seeds; with one method its sample variance. Empty where no difference varies.
    Example:
        >>> one = moderated({"eva": {0: 0.02, 1: 0.01, 2: 0.03}})
        >>> round(one["eva"].value, 6), one["eva"].df
        (0.0001, 2.0)
        >>> both = moderated({"eva": {0: 0.02, 1: 0.01, 2: 0.03}, "sora": {0: 0.01, 1: 0.03, 2: 0.04}})
        >>> both["eva"].df
        4.0

    Source: Smyth 2004, Linear models and empirical Bayes methods. Departures: the control's noise, which all
    differences share, is estimated as a method's own; the spread of the log v_k is taken at its upper 95 % bound,
    because a few variances can look alike by chance, and tests of a noisy method would reject too often.
    """
    several = {name: dict(values) for name, values in differences.items() if len(values) > 1}
    seeds = sorted({seed for values in several.values() for seed in values})
    if not several:
        return {}
    table = np.array([[0.0] * len(seeds), *([row.get(seed, math.nan) for seed in seeds] for row in several.values())])
    rest = table - np.nanmean(table, axis=1, keepdims=True)
    rest = rest - np.nanmean(rest, axis=0)
    rest = rest - np.nanmean(rest, axis=1, keepdims=True)
    df = (~np.isnan(table)).sum(axis=1) - 1.0
    v = len(table) / (len(table) - 1) * np.nansum(rest**2, axis=1) / df
    if not v.max() > SAME**2:
        return {}
    control, *own = _moderated(v, df)
    most = float(df[1:].sum())
    return {
        name: Variance(float(control.value + one.value), min(one.df, most))
        for name, one in zip(several, own, strict=True)
    }


def _moderated(v: Floats, df: Floats) -> list[Variance]:
    """Every variance, moved towards a common one."""
    v = np.maximum(v, FLOOR * np.median(v))
    logs = np.log(v) - special.digamma(df / 2) + np.log(df / 2)
    spread = float(logs.var(ddof=1)) * (len(v) - 1) / float(special.chdtri(len(v) - 1, 1 - DOUBT))
    excess = spread - float(special.polygamma(1, df / 2).mean())
    if excess <= SAME:
        common = float(v @ df / df.sum())
        return [Variance(common, math.inf)] * len(v)
    half = _inverse_trigamma(excess)
    common = math.exp(float(logs.mean()) + float(special.digamma(half)) - math.log(half))
    return [
        Variance((2 * half * common + own * value) / (2 * half + own), 2 * half + own)
        for value, own in zip(v.tolist(), df.tolist(), strict=True)
    ]


def _inverse_trigamma(value: float) -> float:
    """The argument at which the trigamma function, which falls, has a value."""
    # trigamma(x) lies between 1 / x and 1 / x + 1 / x^2
    return float(optimize.brentq(lambda x: float(special.polygamma(1, x)) - value, 1 / (2 * value + 2), 2 / value + 2))
