"""The knapsack against brute force over all patterns, and its speed against one layer at a time."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankopt.analysis import knapsack as module
from rankopt.analysis.knapsack import greedy, knapsack
from rankopt.core.budget import Budget
from rankopt.core.pattern import RankPattern, Shape

VALUES = st.floats(-5, 5).map(lambda value: round(value, 3))
COSTS = st.sampled_from([2, 4, 6, 10, 14])


@st.composite
def problems(draw: Any, concave: bool = False) -> tuple[dict[str, list[float]], dict[str, int]]:
    """Up to four layers of up to three ranks, some of equal cost."""
    gains, costs = {}, {}
    for index in range(draw(st.integers(1, 4))):
        steps = draw(st.lists(VALUES, min_size=0, max_size=3))
        if concave or draw(st.booleans()):
            steps = sorted((abs(step) for step in steps), reverse=True)
        gains[f"layer.{index}"] = [draw(VALUES), *steps]
        gains[f"layer.{index}"] = list(np.cumsum(gains[f"layer.{index}"]))
        costs[f"layer.{index}"] = draw(COSTS)
    return gains, costs


def worth(gains: dict[str, list[float]], pattern: Any) -> float:
    return sum(gains[name][rank] for name, rank in pattern.items())


def price(costs: dict[str, int], pattern: Any) -> int:
    return sum(costs[name] * rank for name, rank in pattern.items())


def every(gains: dict[str, list[float]]) -> list[dict[str, int]]:
    return [
        dict(zip(gains, ranks, strict=True)) for ranks in itertools.product(*(range(len(g)) for g in gains.values()))
    ]


@given(problems(), st.booleans())
def test_optimal_at_every_budget(problem: tuple[dict[str, list[float]], dict[str, int]], divide: bool) -> None:
    """One table contains the optimum of every budget, for both ways of filling it."""
    gains, costs = problem
    with pytest.MonkeyPatch.context() as patch:
        if divide:
            patch.setattr(module, "FEW", 0)
        front = knapsack(gains, costs)
    patterns = every(gains)
    for budget in range(price(costs, {name: len(curve) - 1 for name, curve in gains.items()}) + 3):
        best = max(worth(gains, pattern) for pattern in patterns if price(costs, pattern) <= budget)
        found = front.at(budget)
        assert price(costs, found) <= budget
        assert worth(gains, found) == pytest.approx(best, abs=1e-9)


@given(problems())
def test_the_front_and_the_cheapest(problem: tuple[dict[str, list[float]], dict[str, int]]) -> None:
    """Points of the front rise in cost and gain; the cheapest pattern for a gain reaches it, none cheaper does."""
    gains, costs = problem
    front = knapsack(gains, costs)
    points = list(front.points())
    assert all(a[0] < b[0] and a[1] < b[1] for a, b in itertools.pairwise(points))
    patterns = every(gains)
    for cost, gain in points:
        found = front.cheapest(gain)
        assert worth(gains, found) == pytest.approx(gain, abs=1e-9)
        assert price(costs, found) == cost
        assert not any(price(costs, p) < cost and worth(gains, p) > gain + 1e-9 for p in patterns)
    assert worth(gains, front.cheapest(1e9)) == pytest.approx(points[-1][1], abs=1e-9)


@given(problems(concave=True), st.integers(0, 60))
def test_greedy_is_budget_select_and_nearly_optimal(
    problem: tuple[dict[str, list[float]], dict[str, int]], budget: int
) -> None:
    """On concave curves the greedy choice is `Budget.select`'s, never better than the table's, and at most one
    component worse."""
    gains, costs = problem
    found = greedy(gains, costs, budget)
    steps = {name: [float(step) for step in np.diff(curve)] for name, curve in gains.items()}
    shapes = {name: Shape(1, cost - 1) for name, cost in costs.items()}
    if all(step > 0 for curve in steps.values() for step in curve):
        mask = Budget(parameters=budget).select(steps, shapes)
        assert price(costs, found) == price(costs, {name: sum(kept) for name, kept in mask.items()})
    best = worth(gains, knapsack(gains, costs).at(budget))
    largest = max((step for curve in steps.values() for step in curve), default=0.0)
    assert best - largest - 1e-9 <= worth(gains, found) <= best + 1e-9


@given(st.integers(0, 10_000), st.integers(1, 7), st.integers(17, 60), st.integers(1, 200))
def test_both_ways_of_adding_a_group_agree(seed: int, cost: int, ranks: int, size: int) -> None:
    """Divide and conquer gives the same table as trying every count."""
    draw = np.random.default_rng(seed)
    best = np.cumsum(draw.random(size))
    gains = np.concatenate([[0.0], np.cumsum(np.sort(draw.random(ranks))[::-1])])
    plain, fast = module._step(best, gains, cost), module._concave_step(best, gains, cost)
    np.testing.assert_allclose(fast[0], plain[0], rtol=1e-12)
    left = np.arange(size) - fast[1] * cost
    assert (left >= 0).all()
    np.testing.assert_allclose(best[left] + gains[fast[1]], fast[0], rtol=1e-12)


def whole_model(concave: bool) -> tuple[dict[str, list[float]], dict[str, int]]:
    """72 layers of 16 ranks, three costs per component."""
    steps = np.random.default_rng(0).random((72, 16))
    steps = np.sort(steps)[:, ::-1] if concave else steps
    gains = {f"{i}": np.concatenate([[0.0], np.cumsum(row)]).tolist() for i, row in enumerate(steps)}
    return gains, {f"{i}": [768, 768, 1920][i % 3] for i in range(72)}


def quickest(work: Callable[[], object]) -> float:
    times = []
    for _ in range(3):
        began = time.process_time()
        work()
        times.append(time.process_time() - began)
    return min(times)


def test_curves_that_bend_down_share_a_table() -> None:
    """For concave curves the layers of one cost are one group: faster than the same layers one by one."""
    gains, costs = whole_model(concave=True)
    bent, _ = whole_model(concave=False)
    assert len(knapsack(gains, costs).groups) == 2
    assert len(knapsack(bent, costs).groups) == 72
    assert quickest(lambda: knapsack(gains, costs)) < quickest(lambda: knapsack(bent, costs))


def test_rounding_does_not_split_a_group() -> None:
    """Equal steps whose cumulative sum is slightly convex by rounding still form one group of two layers."""
    curve = np.concatenate([[0.0], np.cumsum([0.9, 0.3, 0.3, 0.2, 0.2])])
    assert (np.diff(curve, 2) > 0).any()
    assert len(knapsack({"a": curve, "b": curve}, {"a": 3, "b": 3}).groups) == 1


def test_edge_cases() -> None:
    """No layers, no budget, unlimited budget; components without gain are not taken."""
    assert knapsack({}, {}).at(10) == RankPattern({})
    assert knapsack({"a": [0.0]}, {"a": 3}).at(10) == {"a": 0}
    front = knapsack({"a": [0.0, 1.0, 1.0], "b": [0.0, 2.0]}, {"a": 3, "b": 3})
    assert front.at(-1) == front.at(2) == {"a": 0, "b": 0}
    assert front.at(10**9) == {"a": 1, "b": 1}
    assert knapsack({"a": [0.0, 1.0, 1.5]}, {"a": 3}, capacity=4).at(100) == {"a": 1}


@pytest.mark.parametrize(
    ("gains", "costs", "message"),
    [
        ({"a": [0.0, float("nan")]}, {"a": 1}, "a gain curve must be finite numbers"),
        ({"a": []}, {"a": 1}, "a gain curve must be finite numbers"),
        ({"a": [0.0, 1.0]}, {"a": 0}, "must cost at least 1 parameter, got 0 for layer 'a'"),
        ({"a": [0.0, 1.0] * 4, "b": [0.0, 1.0]}, {"a": 10**9, "b": 7}, "give a smaller capacity"),
    ],
)
def test_invalid_input_is_refused(gains: Any, costs: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        knapsack(gains, costs)


def test_of_equal_gains_the_cheaper_pattern() -> None:
    """Also where the sums of gains differ by rounding only: 0.1 + 0.2 is not 0.3."""
    front = knapsack({"cheap": [0.0, 1.0], "dear": [0.0, 1.0]}, {"cheap": 3, "dear": 10})
    assert front.at(10) == front.at(12) == {"cheap": 1, "dear": 0}
    front = knapsack({"a": [0.0, 0.1], "b": [0.0, 0.2], "c": [0.0, 0.3]}, {"a": 4, "b": 6, "c": 8})
    assert front.at(10) == {"a": 0, "b": 0, "c": 1}
    assert [gain for _, gain in front.points()] == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6])


@given(problems())
def test_no_cheaper_pattern_is_as_good(problem: tuple[dict[str, list[float]], dict[str, int]]) -> None:
    """Compared with brute force at every budget; whole-number gains, so that many patterns tie."""
    curves, costs = problem
    gains = {name: [float(round(gain)) for gain in curve] for name, curve in curves.items()}
    front, patterns = knapsack(gains, costs), every(gains)
    for budget in range(price(costs, {name: len(curve) - 1 for name, curve in gains.items()}) + 3):
        found = front.at(budget)
        assert not any(
            price(costs, p) < price(costs, found) and worth(gains, p) >= worth(gains, found) for p in patterns
        )
