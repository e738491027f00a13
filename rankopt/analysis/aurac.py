"""The area under the rank-accuracy curve: one number for a curve of scores over parameters."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rankopt.analysis.statistics import NAN


def aurac(parameters: Sequence[float], scores: Sequence[float], low: float, high: float) -> float:
    """The mean score over log parameters between two numbers of parameters.

        AURAC = 1 / (v - u) integral_u^v f(x) dx,    u = log(1 + low), v = log(1 + high)

    with f linear between the points. It is in units of the score, and equal ratios of parameters count equally.

    Args:
        parameters, scores: the points of a curve, in any order.
        low, high: the limits, low < high.
    Returns:
        NaN if the curve does not reach from `low` to `high`.
    Example:
        >>> round(aurac([0, 9, 99], [0.0, 0.5, 0.7], 0, 99), 3)
        0.425
    """
    x, y = (np.array(column) for column in zip(*sorted(zip(parameters, scores, strict=True)), strict=True))
    if not x[0] <= low < high <= x[-1]:
        return NAN
    knots = np.log1p([low, *x[(x > low) & (x < high)], high])
    return float(np.trapezoid(np.interp(knots, np.log1p(x), y), knots) / (knots[-1] - knots[0]))
