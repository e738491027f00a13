"""The one-shot search: trials that follow from a super-network's result, and studies that it refuses."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest

from rankopt.core.pattern import RankPattern, Shape
from rankopt.core.result import Point, TrialResult
from rankopt.core.study_spec import StudySpec
from rankopt.search import build_search
from rankopt.search.oneshot import OneShot


def study(**changes: Any) -> StudySpec:
    base = {"task": {"name": "rte"}, "allocator": {"name": "nested"}, "training": {"lr": 1e-3}}
    base["model"] = {"name": "mini", "scale": "unit"}
    search = {"name": "oneshot", **changes.pop("search", {})}
    return StudySpec.model_validate({"name": "s", "base": base, "space": {"seed": [0, 1]}, "search": search} | changes)


def point(label: str, a: int, b: int) -> Point:
    return Point(label=label, pattern=RankPattern({"a": a, "b": b}), kept=8 * (a + b), search={"m": 0}, report={})


RESULT = TrialResult(
    key="k", spec={}, status="complete", layers={"a": Shape(4, 4), "b": Shape(4, 4)},
    points=(
        point("budget", 4, 4), point("uniform 2", 2, 2), point("energy 2", 3, 1), point("sensitivity 2", 1, 3),
        point("evolved 2", 4, 0),
    ),
)  # fmt: skip


def test_patterns_are_trained_from_scratch() -> None:
    """With the same seed and training settings; the pattern replaces the allocator, its uniform rank the budget."""
    spec = study()
    assignments = list(build_search(spec).follow({"seed": 1}, RESULT))
    trials = [spec.trial(assignment) for assignment in assignments]
    assert [trial.allocator.name for trial in trials] == ["uniform", "uniform", "static"]
    assert [trial.budget.mean_rank for trial in trials if trial.budget] == [4, 2, 2]
    assert {trial.budget.unit for trial in trials if trial.budget} == {"parameters"}
    assert {(trial.seed, trial.training.lr) for trial in trials} == {(1, 1e-3)}
    assert trials[2].allocator.options == {"found": "evolved", "ranks": {"a": 4, "b": 0}}


def test_sources_and_levels_are_chosen() -> None:
    search = OneShot(retrain=("energy", "uniform"), levels=(2.0,))
    assignments = list(search.follow({"seed": 0, "allocator.recovery": 0.3, "budget.mean_rank": 4}, RESULT))
    assert [assignment["allocator"].get("found", "uniform") for assignment in assignments] == ["uniform", "energy"]
    assert all(set(assignment) == {"seed", "allocator", "budget"} for assignment in assignments)
    assert list(OneShot(retrain=()).follow({}, RESULT)) == []


@pytest.mark.parametrize(
    ("levels", "base", "message"),
    [
        ([2, 16], {}, ""),
        ([2, 3], {}, r"finds patterns \(1, 2, 16\), got 3"),
        ([32], {}, "got 32"),
        ([2, 4], {"budget": {"mean_rank": 4}}, ""),
        ([2], {"budget": {"mean_rank": 2.5}}, "left out if budget.mean_rank is not a whole number, got 2.5"),
        ([3], {"budget": {"parameters": 100}}, ""),  # depends on the model
    ],
)
def test_levels_are_those_of_the_allocator(levels: list[float], base: dict[str, Any], message: str) -> None:
    """Whatever the allocator calls the option that sets them."""
    spec = study(search={"levels": levels})
    trial = spec.model_copy(update={"base": {**spec.base, **base}}).trial({})
    with pytest.raises(ValueError, match=message) if message else nullcontext():
        build_search(spec).check_levels(trial, lambda top: [2.0, 1.0])


def test_fields_that_vary_together_with_the_allocator() -> None:
    """Only allocator and budget are replaced; the seed that varies with them stays."""
    spec = study(space={"allocator.recovery, seed": [[0.3, 1]], "budget.mean_rank, training.lr": [[4.0, 2e-3]]})
    (assignment,) = spec.assignments()
    trials = [spec.trial(point) for point in build_search(spec).follow(assignment, RESULT)]
    assert {(trial.seed, trial.training.lr) for trial in trials} == {(1, 2e-3)}


def test_trainings_from_scratch_may_have_other_epochs() -> None:
    """Whether the epochs of the super-network are in the base or in the space."""
    spec = study(search={"epochs": 2})
    for assignment in ({"seed": 1}, {"seed": 1, "training.epochs": 6.0}):
        trials = [spec.trial(point) for point in build_search(spec).follow(assignment, RESULT)]
        assert {(trial.training.epochs, trial.training.lr, trial.seed) for trial in trials} == {(2.0, 1e-3, 1)}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"search": {"trials": 5}}, r"search\.trials must be left out under the search 'oneshot'"),
        ({"search": {"pruner": {"name": "median"}}}, r"search\.pruner must be left out"),
        ({"space": {"training.lr": {"float": [0.1, 0.2]}}}, "must be a list of values under the search 'oneshot'"),
        (
            {"search": {"epochs": 2}, "space": {"training.steps": [50]}},
            r"search\.epochs must be left out if base\.training\.steps is set",
        ),
        ({"base": {"task": {"name": "rte"}, "allocator": {"name": "nested"}}}, r"base\.model\.scale must be 'unit'"),
        ({"constraints": {"parameters": 5}}, "constraints must be left out"),
    ],
)
def test_unsuitable_studies_are_refused(changes: dict[str, Any], message: str) -> None:
    spec = study(**changes)
    with pytest.raises(ValueError, match=message):
        build_search(spec).check(spec)
