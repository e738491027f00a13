"""Parameters for a score: crossing points, and the interval that inverts t-intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest
from curve_data import curve

from rankopt.analysis.budget_at_score import budget_at_score
from rankopt.analysis.statistics import summarize


def test_the_mean_curve_is_inverted() -> None:
    found = budget_at_score(curve([[0.5, 0.7], [0.4, 0.6]]), 0.55)
    assert found.parameters == pytest.approx(math.sqrt(100 * 1000) - 1, rel=0.01)


def test_the_interval_is_where_the_t_interval_contains_the_score() -> None:
    one = curve([[0.50, 0.70], [0.52, 0.74], [0.49, 0.69]])
    found = budget_at_score(one, 0.6)
    for end, side in ((found.low, "high"), (found.high, "low")):
        assert getattr(summarize(one.between([end])[:, 0].tolist()), side) == pytest.approx(0.6, abs=0.001)
    assert found.low < found.parameters < found.high


def test_a_score_beyond_the_curve() -> None:
    found = budget_at_score(curve([[0.5, 0.7], [0.5, 0.72]]), 0.9)
    assert found == (math.inf, math.inf, math.inf)
    assert budget_at_score(curve([[0.5, 0.7], [0.5, 0.72]]), 0.1) == (99, 99, 99)


def test_lower_is_better() -> None:
    up, down = curve([[0.5, 0.7], [0.4, 0.6]]), curve([[-0.5, -0.7], [-0.4, -0.6]], sign=-1)
    assert budget_at_score(up, 0.55) == budget_at_score(down, -0.55)


def test_one_seed_has_no_interval() -> None:
    found = budget_at_score(curve([[0.5, 0.7]]), 0.6)
    assert not math.isnan(found.parameters)
    assert np.isnan([found.low, found.high]).all()


def test_coverage() -> None:
    """The true crossing is inside in 95 of 100 studies."""
    random = np.random.default_rng(0)
    truth = math.sqrt(100 * 1000) - 1
    found = [
        budget_at_score(curve((np.array([0.5, 0.7]) + random.normal(0, 0.02, (4, 2))).tolist()), 0.6)
        for _ in range(300)
    ]
    missed = np.mean([not one.low <= truth <= one.high for one in found])
    assert missed < 0.05 + 3 * (0.05 * 0.95 / 300) ** 0.5
