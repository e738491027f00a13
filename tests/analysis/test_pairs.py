"""Pairs at equal parameters: interpolation on the control's curve, and its limits."""

from __future__ import annotations

import math
from typing import Any

import pytest
from analysis_results import trial

from rankopt.analysis.averages import average
from rankopt.analysis.frame import CONTROL, tidy
from rankopt.analysis.pairs import Pair, interpolation, pairs
from rankopt.core.result import TrialResult


def kept(result: TrialResult, parameters: int) -> TrialResult:
    point = result.own.model_copy(update={"kept": parameters})
    return result.model_copy(update={"points": (point,)})


def found(parameters: int, **spec: Any) -> list[Pair]:
    """A control at 100 and 400 parameters beside another arm with these parameters."""
    control = [
        kept(trial(score, seed=seed, budget={"mean_rank": rank}), size)
        for seed in (0, 1)
        for score, rank, size in ((0.5 + 0.1 * seed, 1.0, 100), (0.7, 4.0, 400))
    ]
    points = tidy([*control, *(kept(trial(0.8, seed=seed, **spec), parameters) for seed in (0, 1))])
    return pairs(points, average(points), CONTROL)


def pair(parameters: int) -> Pair:
    """An allocator at the control's larger budget."""
    (one,) = found(parameters, budget={"mean_rank": 4.0}, allocator={"name": "adalora"})
    return one


def test_equal_parameters_to_within_one_component() -> None:
    one = pair(400 - 12)  # the largest layer is 4 by 8
    assert one.values["control"] == {0: 0.7, 1: 0.7}
    assert not one.unequal


def test_the_control_is_interpolated_at_every_seed() -> None:
    one = pair(200)
    share = math.log(201 / 101) / math.log(401 / 101)
    assert one.values["control"][0] == pytest.approx(0.5 + share * 0.2)
    assert one.values["control"][1] == pytest.approx(0.6 + share * 0.1)
    assert one.values["at_budget"][0] == pytest.approx(0.1)
    assert one.values["difference"][0] > one.values["at_budget"][0]


def test_a_curve_is_not_extended() -> None:
    one = pair(1000)
    assert one.unequal
    assert one.values["difference"] == one.values["at_budget"]
    assert not interpolation(1000, [400, 100])


def test_the_trials_add_up_to_the_difference() -> None:
    """Also where the control is interpolated between two trials."""
    one = pair(200)
    scores = {key: 0.8 for trials in one.trials.values() for key, weight in trials.items() if weight > 0}
    assert len(scores) == 2
    for seed, trials in one.trials.items():
        assert len(trials) == 3
        low, high = (0.5 + 0.1 * seed, 0.7)
        weights = sorted(weight for weight in trials.values() if weight < 0)
        share = math.log(201 / 101) / math.log(401 / 101)
        assert weights == pytest.approx(sorted((share - 1, -share)))
        assert one.values["difference"][seed] == pytest.approx(0.8 + (share - 1) * low - share * high)


@pytest.mark.parametrize(
    ("parameters", "budget", "unequal"),
    [(150, 1.0, False), (300, 4.0, False), (430, 4.0, True), (60, None, None), (9000, None, None)],
)
def test_an_arm_without_ranks_is_paired_at_its_parameters(
    parameters: int, budget: float | None, unequal: bool | None
) -> None:
    """At the budget with the nearest parameters; not where the control's curve ends more than a tenth away."""
    arms = found(parameters, tuner={"name": "adapter", "width": 4}, allocator=None)
    assert [(one.budget, one.unequal) for one in arms] == ([] if budget is None else [(budget, unequal)])
    if unequal is False:
        share = math.log((parameters + 1) / 101) / math.log(401 / 101)
        assert arms[0].values["control"][0] == pytest.approx(0.5 + share * 0.2)


def test_arms_of_several_sizes_have_one_place() -> None:
    """A search pools the widths of an adapter under one label; its chosen width alone would be nearest elsewhere."""
    control = [
        kept(trial(0.5, seed=seed, budget={"mean_rank": rank}), size)
        for seed in (0, 1)
        for rank, size in ((1.0, 100), (4.0, 400))
    ]
    widths = [
        kept(trial(0.8, search, seed=seed, tuner={"name": "adapter", "width": width}, allocator=None), size)
        for seed in (0, 1)
        for width, size, search in ((4, 110, 0.9), (16, 390, 0.1), (15, 380, 0.1))
    ]
    points = tidy([*control, *widths], pooled=True)
    (one,) = pairs(points, average(points), CONTROL)
    assert one.allocator == "adapter"
    assert one.budget == 4.0
