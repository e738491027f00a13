"""What a search found, and how much of the plane it won."""

from __future__ import annotations

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankopt.analysis.pareto import front, hypervolume
from rankopt.analysis.search import BEST, best

POINTS = st.lists(st.tuples(st.integers(1, 20), st.integers(1, 20)), min_size=1, max_size=12)


@given(POINTS)
def test_hypervolume_counts_the_dominated_cells(points: list[tuple[int, int]]) -> None:
    """On whole numbers: the cells of the plane that some point dominates; points off the front add nothing."""
    costs, scores = [c for c, _ in points], [s for _, s in points]
    reference = (15, 5)
    cells = {(x, y) for c, s in points for x in range(c, 15) for y in range(5, s)}
    assert hypervolume(costs, scores, reference) == len(cells)
    kept = front(costs, scores)
    assert hypervolume([costs[i] for i in kept], [scores[i] for i in kept], reference) == len(cells)


def frame() -> pd.DataFrame:
    scores = {"a": (10, 0.5, 0.7), "b": (20, 0.9, 0.1), "c": (30, 0.8, 0.8)}  # kept, search at seeds 0 and 1
    rows = [(name, seed, kept, score) for name, (kept, *both) in scores.items() for seed, score in enumerate(both)]
    data = pd.DataFrame(rows, columns=["configuration", "seed", "kept", "search"])
    same = {"setting": "rte", "allocator": "x", "point": "budget", "mean_rank": 1.0, "score": 0.0}
    return data.assign(**same, key=data["configuration"])


def test_the_best_are_means_over_seeds() -> None:
    """One lucky seed makes no best pattern; a budget picks one, none where nothing is that small."""
    assert list(best(frame())["key"]) == ["a", "c"]
    assert list(best(frame(), 20)["key"]) == ["a"]
    assert list(best(frame(), 30)["search"]) == [pytest.approx(0.8)]
    assert best(frame(), 9).empty
    assert list(best(frame().head(0)).columns) == BEST


def test_a_budget_holds_at_every_seed() -> None:
    """And the key is that of the seed that scores best, whose adapter is the one to take home."""
    uneven = frame().assign(kept=[10, 10, 15, 25, 30, 30])  # b: 20 on average
    assert list(best(uneven, 20)["key"]) == ["a"]
    seeds = uneven.assign(key=uneven["key"] + uneven["seed"].astype(str))
    assert list(best(seeds, 20)["key"]) == ["a1"]


def test_one_lucky_seed_is_no_match_for_two() -> None:
    """A configuration most of whose seeds failed is passed over, within a budget and on the front."""
    lucky = pd.concat([frame(), frame().tail(1).assign(configuration="d", key="d", kept=5, search=0.99)])
    assert list(best(lucky)["key"]) == ["a", "c"]
    assert list(best(lucky, 12)["key"]) == ["a"]


def test_one_pattern_under_two_names_is_one_row() -> None:
    """A super-network's uniform pattern may also be what its knapsack chose; two configurations stay two."""
    twice = pd.concat([frame(), frame().assign(point="energy 1")])
    assert list(best(twice)["key"]) == ["a", "c"]
    apart = pd.concat([frame(), frame().assign(configuration=frame()["configuration"] + "z")])
    assert len(best(apart)) > 2
