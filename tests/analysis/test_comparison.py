"""Means over seeds, the choice by search scores, paired comparisons, and their verdicts."""

from __future__ import annotations

import math

import pytest
from analysis_results import trial

from rankopt.analysis.comparison import average, compare, verdict
from rankopt.analysis.frame import tidy
from rankopt.analysis.statistics import Difference


def test_the_choice_looks_at_the_search_split_only() -> None:
    results = [
        trial(0.9, search=0.5, training={"lr": 1e-3}),
        trial(0.6, search=0.7, training={"lr": 1e-4}),
    ]
    averages = average(tidy(results))
    assert averages.loc[averages["chosen"].astype(bool), "score"].tolist() == [0.6]


def test_the_choice_prefers_configurations_with_all_their_seeds() -> None:
    lucky = [trial(0.9, search=0.9, training={"lr": 1e-3})]
    steady = [trial(0.6, search=0.7, training={"lr": 1e-4}, seed=seed) for seed in (0, 1)]
    averages = average(tidy(lucky + steady))
    assert averages.loc[averages["chosen"].astype(bool), "n"].tolist() == [2]


def test_comparisons_pair_by_task_budget_and_seed() -> None:
    other = {"name": "adalora"}
    results = [
        *(trial(0.60 + 0.01 * seed, seed=seed) for seed in (0, 1, 2)),
        *(trial(0.63 + 0.02 * seed, seed=seed, allocator=other) for seed in (1, 2, 3)),
        trial(0.9, allocator=other, budget={"mean_rank": 4.0}),
        trial(0.9, allocator=other, task={"name": "cola"}),
    ]
    points = tidy(results)
    found = compare(points, average(points))
    assert len(found) == 1
    row = found.iloc[0]
    assert (row["setting"], row["allocator"], row["n"]) == ("rte", "adalora", 2)
    assert row["difference"] == pytest.approx(((0.65 - 0.61) + (0.67 - 0.62)) / 2)
    assert row["p"] == row["p_holm"]


@pytest.mark.parametrize(
    ("found", "p_holm", "words"),
    [
        (Difference(0, math.nan, math.nan, math.nan, math.nan, math.nan), math.nan, "no shared seed"),
        (Difference(1, 0.1, math.nan, math.nan, math.nan, math.nan), math.nan, "one seed"),
        (Difference(3, 0.0, 0.0, 0.0, math.nan, math.nan), math.nan, "equal at every seed"),
        (Difference(3, 0.1, 0.1, 0.1, math.nan, math.nan), math.nan, "same difference at every seed"),
        (Difference(5, -0.1, -0.2, -0.05, 0.001, 0.05), 0.01, "worse"),
        (Difference(5, 0.01, -0.1, 0.1, 0.8, 0.05), 1.0, "below detectable"),
        (Difference(5, 0.06, 0.0, 0.1, 0.04, 0.05), 0.4, "not significant"),
    ],
)
def test_verdicts(found: Difference, p_holm: float, words: str) -> None:
    assert verdict(found, p_holm) == words


def test_rows_name_the_trials_that_were_compared() -> None:
    """The first trial of the chosen configuration and of the control's, so that a reader can tell them apart."""
    control = [trial(0.5, search=0.1 * k, training={"lr": 1e-3 * k}) for k in (1, 2)]
    other = trial(0.6, allocator={"name": "random"})
    points = tidy([*control, other])
    (row,) = compare(points, average(points)).to_dict("records")
    assert (row["key"], row["control_key"]) == (other.key, control[1].key)
