"""The grid: every combination once, in a fixed order; other spaces are refused in one line."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from rankopt.core.study_spec import StudySpec
from rankopt.search import SEARCHES
from rankopt.search.grid import Grid


def study(space: dict[str, Any], **more: Any) -> StudySpec:
    return StudySpec.model_validate({"name": "s", "base": {}, "space": space} | more)


def test_all_combinations_the_last_dimension_fastest() -> None:
    """The product of the lists in the order of the file, values unchanged."""
    space = {"allocator": [{"name": "uniform"}, {"name": "ramp"}], "budget.mean_rank": [1, 2.5], "seed": [3, 1, 2]}
    points = list(study(space).assignments())
    assert points == [dict(zip(space, values, strict=True)) for values in itertools.product(*space.values())]
    assert [point["seed"] for point in points[:4]] == [3, 1, 2, 3]


def test_dimensions_that_vary_together_count_once() -> None:
    """Several paths in one dimension give one point per listed combination, not their product."""
    points = list(study({"task.name, training.lr": [["rte", 1e-3], ["cola", 2e-3]], "seed": [0, 1]}).assignments())
    assert [point["task.name, training.lr"] for point in points] == [["rte", 1e-3]] * 2 + [["cola", 2e-3]] * 2


def test_no_space_is_one_trial() -> None:
    """The base alone is one trial."""
    assert list(study({}).assignments()) == [{}]


@pytest.mark.parametrize("dimension", [{"int": [0, 4]}, {"float": [0.1, 0.2]}])
def test_a_range_is_refused(dimension: dict[str, Any]) -> None:
    """A range has no combinations to run."""
    with pytest.raises(ValueError, match=r"space\.training\.lr must be a list of values under the search 'grid'"):
        Grid().check(study({"training.lr": dimension}))


def test_a_number_of_trials_is_refused() -> None:
    """It would be ignored otherwise."""
    with pytest.raises(ValueError, match=r"search\.trials must be left out"):
        Grid(trials=5).check(study({}))


@pytest.mark.parametrize("name", ["uniform", "adalora"])
def test_retraining_is_for_adaptive_allocators_of_the_study(name: str) -> None:
    """Uniform ranks need no second training; another allocator would never have a result."""
    space = {"allocator": [{"name": "uniform"}, {"name": "sora"}]}
    Grid(retrain=("sora",)).check(study(space))
    with pytest.raises(ValueError, match=rf"search\.retrain must name allocators of this study \(sora\), got '{name}'"):
        Grid(retrain=(name,)).check(study(space))


def test_retraining_tells_variants_apart() -> None:
    """The patterns of two variants would share a label."""
    space = {"allocator": [{"name": "uniform"}, {"name": "sora", "warmup": 0.1}, {"name": "sora", "warmup": 0.2}]}
    with pytest.raises(ValueError, match=r"'sora' has 2 in this study"):
        Grid(retrain=("sora",)).check(study(space))


def test_inner_dimensions_are_refused() -> None:
    """Dimensions inside a listed value are for searches that propose trials."""
    for inner in ({"float": [1.0, 2.0]}, {"choice": [1.0, 2.0]}):
        space = {"allocator": [{"name": "ramp", "ratio": inner}]}
        with pytest.raises(ValueError, match=r"space\.allocator\[ramp\]\.ratio must be .* under the search 'grid'"):
            Grid().check(study(space))


def test_registered_searches() -> None:
    """Lower-case names, and a first docstring line for `rankopt list searches`."""
    assert SEARCHES["grid"] is Grid
    for name, kind in SEARCHES.items():
        assert name == name.lower()
        assert (kind.__doc__ or "").strip().splitlines()[0]
