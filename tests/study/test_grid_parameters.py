"""A grid's dimensions are parameters of its trials: optuna-dashboard has something to plot."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from stored_study import created, record

from rankopt.core.result import TrialResult
from rankopt.core.study_spec import StudySpec
from rankopt.study.grid_parameters import grid_distributions, grid_parameters, points_of
from rankopt.study.queue import enqueue
from rankopt.study.storage import StudyStore

# the package ignores this warning itself; pytest resets filters before every test
pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")

ALLOCATORS = [{"name": "uniform"}, {"name": "spectral", "rule": "cost"}]


def test_ranges_and_choices() -> None:
    found = grid_distributions([{"a": 1, "b": 0.5, "c": "x", "d": 1}, {"a": 3, "b": 2, "c": {"name": "y"}, "d": None}])
    assert found == {
        "a": IntDistribution(1, 3), "b": FloatDistribution(0.5, 2.0), "c": CategoricalDistribution(["x", "y"]),
        "d": CategoricalDistribution([1, None]),
    }  # fmt: skip


def test_a_larger_grid_keeps_the_stored_choices() -> None:
    """Optuna refuses other choices for a known parameter, and another kind."""
    points = [{"c": "x", "n": 1}, {"c": "z", "n": 9}]
    stored = {"c": CategoricalDistribution(["x", "y"]), "n": IntDistribution(1, 3)}
    known, new = (grid_parameters(point, grid_distributions(points), stored) for point in points)
    assert known == ({"c": "x", "n": 1}, {"c": stored["c"], "n": IntDistribution(1, 9)})
    assert new == ({"n": 9}, {"n": IntDistribution(1, 9)})
    assert grid_parameters({"n": "x"}, grid_distributions([{"n": "x"}]), stored) == ({}, {})


def test_trials_of_a_grid_can_be_plotted(
    open_store: Callable[..., StudyStore], study_of: Any, result: Callable[..., TrialResult]
) -> None:
    """Complete trials have their dimensions as parameters, over several runs of a growing grid."""
    store = None
    for allocators, seeds in ((ALLOCATORS[:1], [0, 1]), (ALLOCATORS, [0, 1, 2])):
        study, trials = study_of({"allocator": allocators, "training.lr": [0.001], "seed": seeds})
        store = store or created(open_store, study)
        store.create(study)
        for _ in range(enqueue(store, trials)):
            record(store, result)
    assert store is not None
    complete = store.trials()
    assert [trial.params["seed"] for trial in complete] == [0, 1, 2, 0, 1, 2]
    assert {trial.params["training.lr"] for trial in complete} == {0.001}
    assert [trial.params.get("allocator") for trial in complete] == ["uniform"] * 3 + [None] * 3
    optuna.importance.get_param_importances(store.study, target=lambda trial: trial.values[0])


def test_points_of_trials_from_elsewhere() -> None:
    """Combinations of the space have its own values; other trials those of their fields, without found patterns."""
    base = {"task": {"name": "mini-cola"}, "allocator": {"name": "uniform"}, "budget": {"mean_rank": 2}}
    space = {"allocator, training.lr": [[{"name": "uniform"}, 1e-3], [{"name": "ramp", "ratio": 3.0}, 1e-2]]}
    study = StudySpec.model_validate({"name": "g", "base": base, "space": {**space, "seed": [0, 1]}})
    ramp = {"seed": 0, "allocator, training.lr": [{"name": "ramp", "ratio": 3.0}, 1e-2]}
    found = {"seed": 7, "allocator, training.lr": [{"name": "static", "ranks": {"*": 1}, "found": "adalora"}, 1e-2]}
    later = {"seed": 7, "allocator, training.lr": [{"name": "ramp", "ratio": 3.0}, 1e-2]}
    specs = {study.trial(point).key: study.trial(point).plain for point in (ramp, found, later)}
    points = points_of(study, specs | {"invalid": {"seed": 3, "allocator": "none"}})
    assert len(points) == 4 + 3
    assert [points[key] for key in (*specs, "invalid")] == [ramp, {"seed": 7}, later, {"seed": 3}]
