"""The best patterns of a study."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankopt.analysis.pareto import front, hypervolume
from rankopt.analysis.search import BEST, best, configuration
from rankopt.core.study_spec import StudySpec

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
    return data.assign(**same, key=data["configuration"], gain=data["search"])


def test_the_best_are_means_over_seeds() -> None:
    """A budget selects one pattern, or none if all are larger."""
    assert list(best(frame())["key"]) == ["a", "c"]
    assert list(best(frame(), 20)["key"]) == ["a"]
    assert list(best(frame(), 30)["search"]) == [pytest.approx(0.8)]
    assert best(frame(), 9).empty
    assert list(best(frame().head(0)).columns) == BEST


def test_every_seed_is_within_the_budget() -> None:
    """The key is that of the best seed, whose adapter is exported."""
    uneven = frame().assign(kept=[10, 10, 15, 25, 30, 30])  # b: 20 on average
    assert list(best(uneven, 20)["key"]) == ["a"]
    seeds = uneven.assign(key=uneven["key"] + uneven["seed"].astype(str))
    assert list(best(seeds, 20)["key"]) == ["a1"]


@pytest.mark.parametrize(
    ("dimension", "words"),
    [
        ([["rte", 9], ["sst2", 8]], ""),
        ([["rte", 9], ["sst2", 8], ["rte", 7]], "steps 9"),
        ([["rte", {"choice": [9, 7]}], ["sst2", 8]], "steps 9"),
    ],
)
def test_what_the_task_decides_goes_without_saying(dimension: list[Any], words: str) -> None:
    """Steps that are listed with the task are no setting of a method, unless a task has several."""
    base = {"task": {"name": "rte"}, "allocator": {"name": "ramp"}}
    study = StudySpec(name="s", base=base, space={"task.name, training.steps": dimension})
    assert configuration(study, study.plain({"task.name, training.steps": ["rte", 9]})) == words


def test_configurations_with_fewer_seeds_are_ignored() -> None:
    """Within a budget and on the front, a configuration with failed seeds is not compared."""
    lucky = pd.concat([frame(), frame().tail(1).assign(configuration="d", key="d", kept=5, search=0.99, gain=0.99)])
    assert list(best(lucky)["key"]) == ["a", "c"]
    assert list(best(lucky, 12)["key"]) == ["a"]


def test_one_pattern_under_two_labels_is_one_row() -> None:
    """The knapsack may choose the uniform pattern too; different configurations keep their rows."""
    twice = pd.concat([frame(), frame().assign(point="energy 1")])
    assert list(best(twice)["key"]) == ["a", "c"]
    apart = pd.concat([frame(), frame().assign(configuration=frame()["configuration"] + "z")])
    assert len(best(apart)) > 2


def test_a_lower_perplexity_is_better() -> None:
    """The front and the best within a budget turn over where the gain is the negated score."""
    falling = frame().assign(search=-frame()["search"], gain=frame()["search"])
    assert list(best(falling)["key"]) == ["a", "c"]
    assert list(best(falling, 30)["search"]) == [pytest.approx(-0.8)]
