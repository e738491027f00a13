"""Curves: the seeds that all budgets share, and values between the points."""

from __future__ import annotations

import math

import numpy as np
import pytest
from analysis_results import trial
from curve_data import curve

from rankopt.analysis.curves import common_reach, curves
from rankopt.analysis.frame import tidy


def test_a_curve_has_the_seeds_that_all_budgets_share() -> None:
    results = [trial(0.5 + 0.1 * seed, seed=seed, budget={"mean_rank": 1.0}) for seed in (0, 1)]
    results += [trial(0.7 + 0.1 * seed, seed=seed, budget={"mean_rank": 4.0}, points=4) for seed in (1, 2)]
    (found,) = curves(tidy(results))
    assert (found.seeds, found.budgets) == ((1,), (1.0, 4.0))
    assert found.scores.tolist() == [[0.6, pytest.approx(0.8)]]
    assert found.kept.tolist() == [[20, 80]]


def test_values_between_points_are_linear_in_log_parameters() -> None:
    found = curve([[0.5, 0.7], [0.6, 0.6]], [999, 99]).between([99, math.sqrt(100 * 1000) - 1, 1000])
    assert found[:, :2] == pytest.approx(np.array([[0.7, 0.6], [0.6, 0.6]]))
    assert np.isnan(found[:, 2]).all()


def test_the_common_reach() -> None:
    """Of curves with several points; a single point does not narrow it."""
    wide, narrow, point = curve([[0, 1]]), curve([[0, 1]], [199, 499]), curve([[0]], [299])
    assert common_reach([wide, narrow, point]) == (199, 499)
    assert common_reach([point]) is None
    assert common_reach([wide, curve([[0, 1]], [2000, 3000])]) is None
