"""Intervals of bootstrap values, and the smallest rank within one standard error of the best."""

from __future__ import annotations

import numpy as np

from rankopt.analysis.resamples import error, interval, smallest_within

DRAW = np.random.default_rng(0).normal(size=4000)


def test_interval() -> None:
    """The central 95 % of the values that exist; wider for several comparisons."""
    assert interval(np.array([*range(101), np.nan], float)) == (2.5, 97.5)
    assert np.isnan(interval(np.full(3, np.nan))).all()
    low, high = interval(DRAW, comparisons=5)
    np.testing.assert_allclose((low, high), (-2.576, 2.576), atol=0.15)


def test_error() -> None:
    assert error(np.array([1.0, 3.0, np.nan])) == 1.0
    assert error(np.full(2, np.nan)) == 0.0


def test_the_smallest_rank_within_one_standard_error() -> None:
    """Noise that ranks share does not count; a score apart from the best by more than the error is too low."""
    scores = {1: 0.70, 2: 0.79, 4: 0.80, 8: 0.795}
    shared = {rank: score + 0.1 * DRAW for rank, score in scores.items()}
    assert smallest_within(scores, shared) == (4, 4)
    own = np.random.default_rng(1).normal(size=(4, 4000))
    apart = {rank: score + 0.01 * noise for (rank, score), noise in zip(scores.items(), own, strict=True)}
    assert smallest_within(scores, apart) == (2, 4)
    assert smallest_within({2: 0.5, 4: 0.5}, {2: DRAW, 4: DRAW}) == (2, 2)
