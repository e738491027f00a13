"""The probability of being on the Pareto front, against counting all bootstrap samples."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from curve_data import curve

from rankopt.analysis.front_probability import front_probability
from rankopt.analysis.pareto import front


def test_against_all_bootstrap_samples() -> None:
    curves = [
        curve([[0.5, 0.6], [0.6, 0.8], [0.55, 0.5]]),
        curve([[0.52, 0.7], [0.5, 0.7], [0.5, 0.75]], allocator="a"),
    ]
    counts = np.zeros(4)
    for rows in itertools.product(range(3), repeat=3):
        means = np.concatenate([one.scores[list(rows)].mean(0) for one in curves])
        counts[front([99, 999, 99, 999], means.tolist())] += 1 / 27
    assert np.concatenate(front_probability(curves)) == pytest.approx(counts, abs=0.05)


def test_a_dominated_curve_is_never_on_the_front() -> None:
    best, worst = front_probability([curve([[0.5, 0.7], [0.6, 0.8]]), curve([[0.4, 0.6], [0.5, 0.7]], allocator="a")])
    assert best.tolist() == pytest.approx([1, 1])
    assert worst.tolist() == [0, 0]


def test_lower_is_better_and_only_shared_seeds_count() -> None:
    one, other = curve([[0.4, 0.3], [0.4, 0.3]], sign=-1), curve([[0.5, 0.4]] * 3, sign=-1, allocator="a")
    assert [found.tolist() for found in front_probability([one, other])] == [pytest.approx([1, 1]), [0, 0]]
    assert np.isnan(np.concatenate(front_probability([curve([[0.5, 0.6]])]))).all()
