"""Magnitude and influence against plain transcriptions of the published code."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rankopt.importance.salience import influence, magnitude


def plain_influence(series: np.ndarray, correlation: float, slope: float) -> list[float]:
    """By recursion over numpy's own regressions."""
    n = len(series)
    edges = np.zeros((n, n))
    for i in range(n):
        for j in range(n):
            if i != j and np.corrcoef(series[i], series[j])[0, 1] >= correlation:
                steepness = np.polyfit(series[i], series[j], 1)[0]
                edges[i, j] = steepness if steepness >= slope else 0.0

    def value(i: int) -> float:
        return weight(i) if edges[i].any() else 1.0

    def weight(i: int) -> float:
        return sum(edges[i, j] * value(j) for j in range(n) if edges[i, j])

    weights = [weight(i) for i in range(n)]
    return [w / sum(weights) for w in weights]


def test_influence_is_the_plain_recursion() -> None:
    """Of noisy multiples of a few walks, with chains of edges."""
    draw = np.random.default_rng(0)
    walks = draw.normal(size=(3, 12)).cumsum(1)
    series = np.array([2.5 ** (i // 3) * (walks[i % 3] + 0.02 * draw.normal(size=12)) for i in range(14)])
    found = influence(torch.tensor(series), 0.9, 2.0)
    expected = plain_influence(series, 0.9, 2.0)
    assert sum(value > 0 for value in expected) >= 6
    assert found.tolist() == pytest.approx(expected, rel=1e-6)


def test_constant_gates_have_no_influence() -> None:
    assert influence(torch.ones(3, 5), 0.9, 2.0).tolist() == [0.0, 0.0, 0.0]


def test_magnitude_is_the_plain_sum() -> None:
    """Each layer's shares add up to one; the least orthogonal step does not count."""
    gates = torch.tensor([[1.0, -2.0, 3.0], [0.5, 0.5, -0.5], [4.0, 4.0, 4.0]])
    R, layers = torch.tensor([1.0, 4.0, 2.0]), torch.tensor([0, 0, 1])
    u = [(1 / r - 1 / 4) / (1 - 1 / 4) for r in (1.0, 4.0, 2.0)]
    sums = [sum(abs(float(g)) * w for g, w in zip(row, u, strict=True)) for row in gates]
    expected = [sums[0] / (sums[0] + sums[1]), sums[1] / (sums[0] + sums[1]), 1.0]
    assert magnitude(gates, R, layers).tolist() == pytest.approx(expected)


def test_equal_penalties_weigh_all_steps() -> None:
    found = magnitude(torch.tensor([[1.0, 3.0], [2.0, 2.0]]), torch.ones(2), torch.tensor([0, 0]))
    assert found.tolist() == pytest.approx([0.5, 0.5])
