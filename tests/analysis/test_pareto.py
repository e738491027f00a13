"""Pareto front and hypervolume against their definitions."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankopt.analysis.pareto import front

points = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=12)


@given(points)
def test_front_is_the_set_of_undominated_points(pairs: list[tuple[int, int]]) -> None:
    def dominated(i: int) -> bool:
        cost, score = pairs[i]
        return any(c <= cost and s >= score and (c, s) != (cost, score) for c, s in pairs)

    found = front([cost for cost, _ in pairs], [score for _, score in pairs])
    assert sorted(found) == [i for i in range(len(pairs)) if not dominated(i)]
    assert [pairs[i][0] for i in found] == sorted(pairs[i][0] for i in found)


def test_nan_is_never_on_the_front() -> None:
    assert front([1, 2], [math.nan, 0.5]) == [1]


def test_lengths_must_agree() -> None:
    with pytest.raises(ValueError, match="shorter"):
        front([1, 2], [0.5])
