"""How many parameters does a curve need for a score?"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

from rankopt.analysis.curves import Curve
from rankopt.analysis.statistics import NAN, SAME

STEPS = 400


class Needed(NamedTuple):
    """Parameters, with their interval; infinite where the curve does not reach the score, NaN where unknown."""

    parameters: float
    low: float
    high: float


def budget_at_score(curve: Curve, score: float, level: float = 0.95) -> Needed:
    """The fewest parameters with which a curve reaches a score.

    The mean over seeds is a function of the parameters with a t-interval at each. The result is where the mean reaches
    the score first, and its interval goes from where the better end does to where the worse end does: these are the
    parameters at which a t-test at this level does not reject that the mean is the score.

    Args:
        curve: with several budgets.
        score: the score to reach.
        level: of the interval.
    Returns:
        With one seed, ends that are NaN.

    Source: Miller 1981, Simultaneous statistical inference, section 3.2: inverse regression by inverting intervals.
    """
    low, high = curve.reach
    if not low < high:
        return Needed(NAN, NAN, NAN)
    # the mean is piecewise linear, and its interval is not, hence a fine grid with all points of the curve
    inner = curve.kept[(curve.kept > low) & (curve.kept < high)]
    grid = np.expm1(np.linspace(math.log1p(low), math.log1p(high), STEPS))[1:-1]
    parameters = np.unique([low, *inner, *grid, high])
    gaps = curve.sign * (curve.between(parameters) - score)
    n = len(gaps)
    mean, error = gaps.mean(0), gaps.std(0, ddof=1) / math.sqrt(n) if n > 1 else NAN
    reach = error * float(special.stdtrit(n - 1, (1 + level) / 2)) if n > 1 else NAN

    def first(values: NDArray[np.float64]) -> float:
        reached = values >= -SAME
        return float(parameters[reached.argmax()]) if reached.any() else math.inf

    return Needed(first(mean), *((first(mean + reach), first(mean - reach)) if n > 1 else (NAN, NAN)))
