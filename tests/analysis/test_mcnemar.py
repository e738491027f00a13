"""McNemar's test: its exact form, its form for several seeds, and its error rate."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from rankopt.analysis.mcnemar import mcnemar


def test_one_seed_is_the_exact_binomial_test() -> None:
    first = np.array([[1] * 7 + [0] * 2 + [1] * 20], bool)
    second = np.array([[0] * 7 + [1] * 2 + [1] * 20], bool)
    tail = sum(math.comb(9, k) for k in (0, 1, 2)) / 2**9
    assert mcnemar(first, second) == pytest.approx(2 * tail)


def test_several_seeds_are_clusters_of_an_example() -> None:
    """Repeating one training adds no information: the statistic is that of one."""
    random = np.random.default_rng(0)
    first, second = random.random((1, 300)) < 0.8, random.random((1, 300)) < 0.7
    b, c = int((first & ~second).sum()), int((second & ~first).sum())
    classic = stats.chi2.sf((b - c) ** 2 / (b + c), 1)
    assert mcnemar(first.repeat(3, 0), second.repeat(3, 0)) == pytest.approx(classic)


def test_no_disagreement() -> None:
    hits = np.ones((2, 5), bool)
    assert mcnemar(hits, hits) == 1.0


def test_few_equal_classifiers_differ() -> None:
    """Seeds share the difficulty of examples; a test that ignored it would reject far more often."""
    random = np.random.default_rng(0)
    found = []
    for _ in range(400):
        easy = random.beta(1, 1, 200), random.beta(1, 1, 200)
        which = random.random(200) < 0.5  # sides differ at each example, and on average they do not
        chances = np.where(which, easy[0], easy[1]), np.where(which, easy[1], easy[0])
        found.append(mcnemar(*(random.random((4, 200)) < chance for chance in chances)))
    assert np.mean(np.array(found) < 0.05) < 0.05 + 3 * (0.05 * 0.95 / 400) ** 0.5
