"""Means over seeds, and the choice of a configuration by search scores."""

from __future__ import annotations

import pytest
from analysis_results import trial

from rankopt.analysis.averages import average
from rankopt.analysis.frame import tidy


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


def test_errors_are_those_of_the_mean() -> None:
    (row,) = average(tidy([trial(0.6, seed=0), trial(0.7, seed=1)])).to_dict("records")
    assert (row["n"], row["score"], row["error"]) == pytest.approx((2, 0.65, 0.05))


def test_the_choice_follows_the_direction_of_the_metric() -> None:
    results = [trial(0.9, search=0.9, training={"lr": 1e-3}), trial(0.6, search=0.7, training={"lr": 1e-4})]
    falling = average(tidy([one.model_copy(update={"minimised": ("accuracy",)}) for one in results]))
    assert falling.loc[falling["chosen"].astype(bool), "score"].tolist() == [0.6]
    assert falling["gain"].tolist() == (-falling["search"]).tolist()
