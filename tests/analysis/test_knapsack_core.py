"""The search around the linear optimum against the table, and on costs for which a table would be too large."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankopt.analysis.knapsack import greedy, knapsack
from rankopt.analysis.knapsack_core import best_at, cheapest


def problem(
    seed: int, layers: int, ranks: int, costs: list[int], rounded: bool = False
) -> tuple[dict[str, list[float]], dict[str, int]]:
    draw = np.random.default_rng(seed)
    steps = np.sort(draw.random((layers, ranks)), 1)[:, ::-1]
    if rounded:
        steps = steps.round(1)
    gains = {f"{i}": np.concatenate([[0.0], np.cumsum(steps[i])]).tolist() for i in range(layers)}
    return gains, {f"{i}": int(draw.choice(costs)) for i in range(layers)}


def worth(gains: dict[str, list[float]], pattern: object) -> float:
    return sum(gains[name][rank] for name, rank in pattern.items())  # type: ignore[attr-defined]


@given(
    st.integers(0, 10_000),
    st.integers(1, 6),
    st.integers(1, 5),
    st.lists(st.integers(1, 40), min_size=1, max_size=4),
    st.booleans(),
)
def test_as_good_as_the_table(seed: int, layers: int, ranks: int, costs: list[int], rounded: bool) -> None:
    """At every budget the same gain, within the budget; for every gain the same cost."""
    gains, prices = problem(seed, layers, ranks, costs, rounded)
    front = knapsack(gains, prices)
    for budget in range(0, sum(prices.values()) * ranks + 3, 7):
        pattern, exact = best_at(gains, prices, budget)
        assert exact
        assert sum(prices[name] * rank for name, rank in pattern.items()) <= budget
        assert worth(gains, pattern) == pytest.approx(worth(gains, front.at(budget)), abs=1e-9)
    total = sum(curve[-1] for curve in gains.values())
    for share in (0.3, 0.7, 0.95):
        found, _ = cheapest(gains, prices, share * total - 1e-9)
        same = front.cheapest(share * total - 1e-9)
        assert worth(gains, found) >= share * total - 1e-9
        assert sum(prices[n] * r for n, r in found.items()) == sum(prices[n] * r for n, r in same.items())


def test_costs_without_a_divisor() -> None:
    """GPT-2 with its embedding at rank 64: 16 million units, seven costs; proven optimal, and better than greedy."""
    gains, costs = problem(0, 49, 64, [3072, 1536, 3840, 51025, 1793])
    better = 0
    for share in (0.1, 0.3, 0.5, 0.8):
        budget = int(share * 64 * sum(costs.values()))
        pattern, exact = best_at(gains, costs, budget)
        assert exact
        plain = worth(gains, greedy(gains, costs, budget))
        assert worth(gains, pattern) >= plain
        better += worth(gains, pattern) > plain
    assert better


def test_a_curve_that_is_not_concave_is_refused() -> None:
    with pytest.raises(ValueError, match="must be concave here"):
        best_at({"a": [0.0, 1.0, 3.0]}, {"a": 2}, 4)
