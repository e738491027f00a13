"""Random: a control whose draws are fair, reproducible and independent of the budget."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import pytest

from rankopt.allocators.random import Random
from rankopt.core.budget import Budget
from rankopt.core.pattern import RankPattern
from rankopt.lowrank.scale import Scale


@pytest.fixture
def draw(lab: Any) -> Any:
    """The pattern of a seed and budget, on fresh layers of a large physical rank."""
    _, layers = lab.inject(Scale("init", 1.0), 32)

    def draw(seed: int, budget: Budget) -> RankPattern:
        allocator = Random()
        state = allocator.start(layers, budget, 10, seed)
        return allocator.finish(state, layers)[0]

    return draw


def test_seeds_draw_different_patterns(draw: Any) -> None:
    """Each of the same cost; the same seed draws the same."""
    found = [draw(seed, Budget(mean_rank=4)) for seed in range(20)]
    assert len(set(found)) == 20
    assert {pattern.total for pattern in found} == {20}
    assert draw(3, Budget(mean_rank=4)) == found[3]


def test_no_layer_is_favoured(draw: Any) -> None:
    """Over 300 seeds every layer gets the same on average, and the spread of a uniform draw from the simplex."""
    sums: Counter[str] = Counter()
    squares: Counter[str] = Counter()
    for seed in range(300):
        for name, rank in draw(seed, Budget(mean_rank=4)).items():
            sums[name] += rank
            squares[name] += rank**2
    for name in sums:
        mean = sums[name] / 300
        deviation = (squares[name] / 300 - mean**2) ** 0.5
        assert 3.4 < mean < 4.6
        assert 2.7 < deviation < 3.9, "20 / 5 (4 / 6) ** 0.5 = 3.27 for a share of a flat Dirichlet over five"


def test_more_budget_never_takes_away(draw: Any) -> None:
    """The weights are the seed's; a larger budget shares out more of the same."""
    for seed in range(5):
        levels = [draw(seed, Budget(ranks=amount)) for amount in range(0, 41)]
        for less, more in itertools.pairwise(levels):
            assert all(less[name] <= more[name] for name in less)
            assert more.total == less.total + 1
