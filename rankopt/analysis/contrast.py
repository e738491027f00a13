"""The mean of paired differences, with a test and the interval that inverts it: a t-test, or sign flips."""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import special

from rankopt.analysis.moderation import Variance
from rankopt.analysis.statistics import NAN, SAME, power_shift, spread_interval

Strata = Sequence[Sequence[float]]
"""Differences of every stratum (a task): one per seed."""

EXACT = 14
"""Up to this many differences all sign flips are counted; beyond it, as many drawn with a fixed seed."""

ENOUGH = 9
"""The least p-value of sign flips, 2 / 2^n, is below 0.5 % from this many differences on."""

MOST_SEEDS = 1000
"""Larger numbers of seeds are not searched for."""


class Contrast(ABC):
    """The mean over strata of mean differences. A test at level alpha rejects where its interval excludes zero.

    Args:
        strata: one or more strata with at least one difference each.
        variances: of every stratum's differences, where they are known better than from these differences alone.
    """

    def __init__(self, strata: Strata, variances: Sequence[Variance] | None = None) -> None:
        self.strata = [np.asarray(stratum, dtype=float) for stratum in strata]
        self.variances = variances or [
            Variance(float(stratum.var(ddof=1)) if len(stratum) > 1 else NAN, len(stratum) - 1.0)
            for stratum in self.strata
        ]

    @property
    def mean(self) -> float:
        """The mean over strata of the strata's means."""
        return float(np.mean([stratum.mean() for stratum in self.strata]))

    @property
    def n(self) -> int:
        """The number of differences in the smallest stratum."""
        return min(len(stratum) for stratum in self.strata)

    @property
    def constant(self) -> bool:
        """Whether the differences of every stratum agree up to rounding, so that they show no variation."""
        return all(float(np.ptp(stratum)) <= SAME for stratum in self.strata)

    @cached_property
    def error(self) -> float:
        """The standard error of the mean, sqrt(sum_t s_t^2 / n_t) / T; NaN with one difference in a stratum."""
        return self._error(None)

    def _error(self, seeds: int | None) -> float:
        """The standard error with this many seeds per stratum, or as many as there are."""
        parts = [
            variance.value / (seeds or len(stratum))
            for stratum, variance in zip(self.strata, self.variances, strict=True)
        ]
        return math.sqrt(sum(parts)) / len(self.strata)

    @abstractmethod
    def df(self, seeds: int) -> float:
        """Degrees of freedom of the test's power with this many seeds per stratum."""

    @property
    @abstractmethod
    def p(self) -> float:
        """The two-sided p-value of "the mean is zero"; NaN if no test is possible."""

    @abstractmethod
    def interval(self, alpha: float) -> tuple[float, float]:
        """The means that the test does not reject at level alpha; NaN if no test is possible."""

    def least_seeds(self, alpha: float) -> int:
        """The fewest seeds per stratum with which the test can reject at level alpha at all."""
        return 2

    def detectable(self, alpha: float, power: float = 0.8) -> tuple[float, float, float]:
        """The smallest true mean that is detected with this power, and its 95 % interval from that of the spread.

        Returns:
            Infinite if the test cannot reject with this many seeds, NaN if the spread is unknown.
        """
        if self.n < self.least_seeds(alpha):
            return math.inf, math.inf, math.inf
        if not self.error > SAME:
            return NAN, NAN, NAN
        found = power_shift(self.df(self.n), power, alpha) * self.error
        low, high = spread_interval(sum(variance.df for variance in self.variances))
        return found, found * low, found * high

    def seeds_for(self, difference: float, alpha: float, power: float = 0.8) -> int | None:
        """The seeds per stratum that detect a true mean with this power; None if unknown or above `MOST_SEEDS`."""
        if not self.error > SAME or abs(difference) <= SAME:
            return None

        def enough(seeds: int) -> bool:
            return power_shift(self.df(seeds), power, alpha) * self._error(seeds) <= abs(difference)

        if not enough(MOST_SEEDS):
            return None
        low, high = 1, MOST_SEEDS  # the first is not enough, the second is
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if enough(middle) else (middle, high)
        return max(high, self.least_seeds(alpha))


def contrast(strata: Strata, symmetric_only: bool, variances: Sequence[Variance] | None = None) -> Contrast:
    """Sign flips where differences are not normal, or where several strata have enough of them; otherwise a t-test.

    Args:
        strata: differences of every stratum.
        symmetric_only: whether the differences are known not to be normal, because a training collapsed.
        variances: see `Contrast`; with as many degrees of freedom as sign flips have, a t-test is not conservative.
    """
    if symmetric_only:
        return FlipContrast(strata)
    t = TContrast(strata, variances)
    flips = len(strata) > 1 and sum(map(len, strata)) >= ENOUGH and t.df(t.n) < len(strata) * (t.n - 1)
    return FlipContrast(strata) if flips else t


class TContrast(Contrast):
    """A t-test with the degrees of freedom of the stratum that has the fewest: with one stratum, the paired t-test.

        t = mean / error,    df = min_t df_t,    df_t = n_t - 1 unless the variance was estimated with others

    With several strata of unknown variances it is conservative: given the shares lambda_t of the variance,
    `P(Z^2 > c^2 sum_t lambda_t s_t^2 / sigma_t^2)` is convex in them, hence largest where one stratum has it all.

    Example:
        >>> found = TContrast([[0.02, 0.01, 0.03]])
        >>> round(found.mean, 3), round(found.p, 4)
        (0.02, 0.0742)

    Source: Student 1908, The probable error of a mean; for several strata Mickey and Brown 1966.
    """

    def df(self, seeds: int) -> float:
        beside = (
            variance.df - (len(stratum) - 1) for stratum, variance in zip(self.strata, self.variances, strict=True)
        )
        return min(beside) + seeds - 1

    @property
    def p(self) -> float:
        return float(2 * special.stdtr(self.df(self.n), -abs(self.mean) / self.error)) if self.error > SAME else NAN

    def interval(self, alpha: float) -> tuple[float, float]:
        if not self.error > SAME:
            return NAN, NAN
        reach = float(special.stdtrit(self.df(self.n), 1 - alpha / 2)) * self.error
        return self.mean - reach, self.mean + reach


class FlipContrast(Contrast):
    """A sign-flip test: exact for any distribution, if it does not matter which side of a pair is which.

    The mean delta is rejected where flipping the signs of `d - delta` too rarely gives a mean as far on the same side.
    Flipping the subset J does so where the weighted mean of J lies beyond delta, hence the interval ends at order
    statistics of the means of all subsets:

        p(delta) = 2 min(P(mean_J <= delta), P(mean_J >= delta)),    the empty subset counting as both

    Its power is approximated by that of a t-test.

    Example:
        >>> FlipContrast([[0.02, 0.01, 0.03]]).p
        0.25

    Source: Fisher 1935, The design of experiments, section 21; Hartigan 1969, Using subsample values as typical values.
    """

    def df(self, seeds: int) -> float:
        return len(self.strata) * (seeds - 1)

    def least_seeds(self, alpha: float) -> int:
        return math.ceil(math.log2(2 / alpha) / len(self.strata))

    @cached_property
    def _subset_means(self) -> NDArray[np.float64]:
        values = np.concatenate(self.strata)
        weights = np.concatenate([np.full(len(s), 1 / (len(s) * len(self.strata))) for s in self.strata])
        if len(values) <= EXACT:
            flips = np.array(list(itertools.product((False, True), repeat=len(values)))[1:])
        else:
            flips = np.random.default_rng(0).random((2**EXACT - 1, len(values))) < 0.5
            flips = flips[flips.any(axis=1)]
        return np.sort((flips @ (weights * values)) / (flips @ weights))

    @property
    def p(self) -> float:
        means = self._subset_means
        # means that are zero up to rounding count on both sides
        fewer = min(int((means <= SAME).sum()), int((means >= -SAME).sum()))
        return min(1.0, 2 * (1 + fewer) / (len(means) + 1))

    def interval(self, alpha: float) -> tuple[float, float]:
        means = self._subset_means
        # a delta below the k-th smallest mean has at most k - 1 means on its side, hence p <= 2 k / 2^n
        k = math.floor(alpha * (len(means) + 1) / 2 + SAME)
        return (float(means[k - 1]), float(means[-k])) if k else (-math.inf, math.inf)
