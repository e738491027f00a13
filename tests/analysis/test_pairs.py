"""Pairs at equal parameters: interpolation on the control's curve, and its limits."""

from __future__ import annotations

import math

import pytest
from analysis_results import trial

from rankopt.analysis.averages import average
from rankopt.analysis.frame import CONTROL, tidy
from rankopt.analysis.pairs import Pair, interpolation, pairs
from rankopt.core.result import TrialResult


def kept(result: TrialResult, parameters: int) -> TrialResult:
    point = result.own.model_copy(update={"kept": parameters})
    return result.model_copy(update={"points": (point,)})


def pair(parameters: int) -> Pair:
    """A control at 100 and 400 parameters, and an allocator at the larger budget with other parameters."""
    control = [
        kept(trial(score, seed=seed, budget={"mean_rank": rank}), size)
        for seed in (0, 1)
        for score, rank, size in ((0.5 + 0.1 * seed, 1.0, 100), (0.7, 4.0, 400))
    ]
    other = [
        kept(trial(0.8, seed=seed, budget={"mean_rank": 4.0}, allocator={"name": "adalora"}), parameters)
        for seed in (0, 1)
    ]
    points = tidy([*control, *other])
    (found,) = pairs(points, average(points), CONTROL)
    return found


def test_equal_parameters_to_within_one_component() -> None:
    found = pair(400 - 12)  # the largest layer is 4 by 8
    assert found.values["control"] == {0: 0.7, 1: 0.7}
    assert not found.unequal


def test_the_control_is_interpolated_at_every_seed() -> None:
    found = pair(200)
    share = math.log(201 / 101) / math.log(401 / 101)
    assert found.values["control"][0] == pytest.approx(0.5 + share * 0.2)
    assert found.values["control"][1] == pytest.approx(0.6 + share * 0.1)
    assert found.values["at_budget"][0] == pytest.approx(0.1)
    assert found.values["difference"][0] > found.values["at_budget"][0]


def test_a_curve_is_not_extended() -> None:
    found = pair(1000)
    assert found.unequal
    assert found.values["difference"] == found.values["at_budget"]
    assert not interpolation(1000, [400, 100])


def test_the_trials_add_up_to_the_difference() -> None:
    """Also where the control is interpolated between two trials."""
    found = pair(200)
    scores = {key: 0.8 for trials in found.trials.values() for key, weight in trials.items() if weight > 0}
    assert len(scores) == 2
    for seed, trials in found.trials.items():
        assert len(trials) == 3
        low, high = (0.5 + 0.1 * seed, 0.7)
        weights = sorted(weight for weight in trials.values() if weight < 0)
        share = math.log(201 / 101) / math.log(401 / 101)
        assert weights == pytest.approx(sorted((share - 1, -share)))
        assert found.values["difference"][seed] == pytest.approx(0.8 + (share - 1) * low - share * high)
