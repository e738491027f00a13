"""Evolution: patterns within the budget, each evaluated once, up to the allowed number; it finds the optimum."""

from __future__ import annotations

import itertools

import pytest

from rankopt.analysis.evolution import evolve
from rankopt.core.pattern import RankPattern

COSTS = {"a": 2, "b": 2, "c": 5}
MOST = {"a": 3, "b": 3, "c": 3}


def spent(pattern: RankPattern) -> int:
    return sum(COSTS[name] * rank for name, rank in pattern.items())


def gain(pattern: RankPattern) -> float:
    return 3.0 * pattern["a"] ** 0.5 + pattern["b"] + 2.0 * pattern["c"] ** 0.9 + 0.5 * pattern["a"] * pattern["c"]


@pytest.mark.parametrize("seed", range(5))
def test_patterns_are_within_budget_and_evaluated_once(seed: int) -> None:
    looked: list[RankPattern] = []

    def rate(pattern: RankPattern) -> tuple[float]:
        looked.append(pattern)
        return (-gain(pattern),)

    start = [RankPattern({"a": 1, "b": 1, "c": 1}), RankPattern({"a": 0, "b": 0, "c": 2})]
    found = evolve(start, COSTS, 11, MOST, rate, looks=8, seed=seed)
    assert looked[:2] == start
    assert len(looked) == len(set(looked)) == 8
    for pattern in looked:
        assert spent(pattern) <= 11
        assert all(0 <= rank <= MOST[name] for name, rank in pattern.items())
    for pattern in looked[2:]:  # no further component fits into a child
        assert all(spent(pattern) + COSTS[n] > 11 or rank == MOST[n] for n, rank in pattern.items())
    assert gain(found) == max(map(gain, looked))


def test_the_optimum_of_a_small_space_is_found() -> None:
    """With enough evaluations for all patterns; it stops when no new pattern is left."""
    everything = [RankPattern(dict(zip("abc", ranks, strict=True))) for ranks in itertools.product(range(4), repeat=3)]
    best = max(gain(pattern) for pattern in everything if spent(pattern) <= 11)
    start = [RankPattern({"a": 0, "b": 3, "c": 1})]
    found = evolve(start, COSTS, 11, MOST, lambda pattern: (-gain(pattern),), looks=1000, seed=0)
    assert gain(found) == best


def test_equal_seeds_give_equal_results() -> None:
    start = [RankPattern({"a": 1, "b": 1, "c": 1})]
    runs = [evolve(start, COSTS, 11, MOST, lambda pattern: (-gain(pattern),), looks=6, seed=3) for _ in range(2)]
    assert runs[0] == runs[1]
    assert evolve(start, COSTS, 11, MOST, lambda pattern: (0.0,), looks=0, seed=0) == start[0]
