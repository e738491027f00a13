"""Aggregates over tasks against plain transcriptions of their definitions."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from rankopt.analysis.over_tasks import (
    interquartile_mean,
    performance_profile,
    probability_of_improvement,
    shared_tasks,
    stratified_interval,
)

RANDOM = np.random.default_rng(0)
FIRST = [RANDOM.normal(0.6, 0.1, 5).tolist(), RANDOM.normal(0.7, 0.1, 4).tolist()]
SECOND = [RANDOM.normal(0.55, 0.1, 3).tolist(), [FIRST[1][0], 0.8]]


def test_the_middle_half() -> None:
    values = sorted(itertools.chain(*FIRST))
    assert interquartile_mean(FIRST) == pytest.approx(np.mean(values[2:-2]))


def test_the_probability_counts_pairs() -> None:
    """Mann-Whitney's U over the number of pairs, mean over tasks."""
    shares = [stats.mannwhitneyu(a, b).statistic / (len(a) * len(b)) for a, b in zip(FIRST, SECOND, strict=True)]
    assert probability_of_improvement(FIRST, SECOND) == pytest.approx(np.mean(shares))
    assert probability_of_improvement(SECOND, FIRST) == pytest.approx(1 - np.mean(shares))


def test_profiles_fall_from_one_to_zero() -> None:
    thresholds = np.linspace(0, 1, 11)
    found = performance_profile(FIRST, thresholds)
    wanted = [np.mean([np.mean([x > tau for x in task]) for task in FIRST]) for tau in thresholds]
    assert found == pytest.approx(wanted)
    assert (found[0], found[-1]) == (1, 0)


def test_the_bootstrap_draws_within_tasks() -> None:
    """Its spread is that of independent means, each of its own task."""

    def mean(runs: list[np.ndarray]) -> np.ndarray:
        return np.mean([task.mean(-1) for task in runs], axis=0)

    low, high = stratified_interval(mean, FIRST, draws=20_000)
    error = np.sqrt(sum(np.var(task) / len(task) for task in FIRST)) / 2
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.05)
    assert np.isnan(stratified_interval(mean, [[0.5], [0.5, 0.6]])).all()


def test_only_shared_tasks_are_used() -> None:
    found = shared_tasks({"a": {"x": [1.0], "y": [2.0]}, "b": {"y": [3.0]}})
    assert found == {"a": [[2.0]], "b": [[3.0]]}
    assert shared_tasks({}) == {}
