"""Bootstrap resamples of examples, and what follows from them: intervals, and which rank is enough."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LEVEL = 95
"""Level of intervals in percent."""
BLOCK = 4_000_000
"""Resamples are drawn in blocks of about this many numbers."""


def resamples(size: int, draws: int, seed: int) -> Iterator[Floats]:
    """How often each example is in each resample, in blocks `(resamples, size)`; the same for everything resampled.

    Example:
        >>> (block,) = resamples(4, 3, seed=0)
        >>> block.shape, block.sum(1).tolist()
        ((3, 4), [4.0, 4.0, 4.0])
    """
    random, step = np.random.default_rng(seed), max(1, BLOCK // size)
    for start in range(0, draws, step):
        rows = min(step, draws - start)
        drawn = random.integers(size, size=(rows, size)) + size * np.arange(rows)[:, None]
        yield np.bincount(drawn.ravel(), minlength=rows * size).reshape(rows, size).astype(float)


def smallest_within(scores: Mapping[int, float], drawn: Mapping[int, Floats]) -> tuple[int, int]:
    """The smallest rank whose score is within one standard error of the best one's.

        r = min {q : s_best - s_q <= SE(s_best - s_q)}

    The standard error is that of paired examples, from bootstrap resamples that all ranks share.

    Args:
        scores: rank -> score, higher is better.
        drawn: rank -> its score on each resample, `(resamples,)`; NaN where a resample has none.
    Returns:
        The chosen rank and the best one.
    Example:
        >>> draw = np.array([-0.02, 0.0, 0.02])
        >>> smallest_within({1: 0.6, 2: 0.79, 4: 0.8}, {1: 0.6 + draw, 2: 0.79 - draw, 4: 0.8 + draw})
        (2, 4)

    Source: Breiman et al. 1984, the one-standard-error rule.
    """
    best = max(scores, key=lambda rank: (scores[rank], -rank))
    chosen = min(rank for rank in scores if scores[best] - scores[rank] <= error(drawn[best] - drawn[rank]))
    return chosen, best


def error(values: Floats) -> float:
    """The standard deviation of bootstrap values; 0 without any."""
    known = values[~np.isnan(values)]
    return float(known.std()) if len(known) else 0.0


def interval(values: Floats, comparisons: int = 1) -> tuple[float, float]:
    """The 95 % percentile interval of bootstrap values, Bonferroni-adjusted for several comparisons; NaN of none.

    Example:
        >>> interval(np.arange(101.0))
        (2.5, 97.5)
        >>> interval(np.arange(101.0), comparisons=5)
        (0.5, 99.5)

    Source: Efron and Tibshirani 1993, chapter 13.
    """
    known = values[~np.isnan(values)]
    if not len(known):
        return float("nan"), float("nan")
    tail = (100 - LEVEL) / 2 / comparisons
    low, high = np.percentile(known, [tail, 100 - tail])
    return float(low), float(high)
