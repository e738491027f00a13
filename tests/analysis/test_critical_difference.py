"""Critical differences against the values and the example of Demšar 2006."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from rankopt.analysis.critical_difference import critical_difference

Q = {3: 2.343, 4: 2.569, 5: 2.728, 10: 3.164}
"""Number of classifiers -> q at 5 %, Demšar's table 5."""


@pytest.mark.parametrize("k", Q)
def test_the_difference_is_that_of_the_table(k: int) -> None:
    found = critical_difference({f"a{number}": (np.arange(14) % (number + 2)).tolist() for number in range(k)})
    assert found is not None
    assert found.difference == pytest.approx(Q[k] * math.sqrt(k * (k + 1) / (6 * 14)), rel=0.001)


def test_ranks_and_friedman() -> None:
    scores = {"a": [0.9, 0.8, 0.7, 0.9], "b": [0.8, 0.8, 0.6, 0.7], "c": [0.1, 0.2, 0.3, 0.2]}
    found = critical_difference(scores)
    assert found is not None
    assert found.ranks == {"a": 1.125, "b": 1.875, "c": 3.0}
    assert found.p == pytest.approx(stats.friedmanchisquare(*scores.values()).pvalue)


def test_groups_do_not_differ() -> None:
    """Far apart: two groups that overlap. Equal: one group."""
    random = np.random.default_rng(0)
    apart = {
        name: (level + random.normal(0, 0.001, 12)).tolist() for name, level in zip("abcd", (4, 3, 2, 1), strict=True)
    }
    found = critical_difference(apart)
    assert found is not None
    assert found.difference < 2
    assert found.groups == [["a", "b"], ["b", "c"], ["c", "d"]]
    equal = critical_difference({name: [0.5, 0.5, 0.5] for name in "abc"})
    assert equal is not None
    assert (equal.groups, equal.p) == ([["a", "b", "c"]], 1.0)


def test_too_few_tasks_or_allocators() -> None:
    assert critical_difference({"a": [1, 2, 3], "b": [1, 2, 3]}) is None
    assert critical_difference({"a": [1, 2], "b": [1, 2], "c": [1, 2]}) is None
