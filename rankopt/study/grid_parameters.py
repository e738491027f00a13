"""A grid's dimensions as Optuna's parameters, so that the plots of optuna-dashboard show them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial
from pydantic import ValidationError

from rankopt.core.path import paths_of, split_path
from rankopt.core.space import Assignment
from rankopt.core.spec import decode
from rankopt.core.study_spec import StudySpec
from rankopt.core.trial_spec import TrialSpec
from rankopt.study.stored_records import shown

Parameters = tuple[dict[str, Any], dict[str, BaseDistribution]]


def grid_distributions(points: Iterable[Mapping[str, Any]]) -> dict[str, BaseDistribution]:
    """A distribution per dimension that holds all its values: a range of numbers, or a list of texts.

    Args:
        points: of the space: dimension -> value.
    Example:
        >>> found = grid_distributions([{"seed": 0, "allocator": {"name": "ramp"}}, {"seed": 4}])
        >>> found["seed"], found["allocator"]
        (IntDistribution(high=4, log=False, low=0, step=1), CategoricalDistribution(choices=('ramp',)))
    """
    values: dict[str, list[Any]] = {}
    for point in points:
        for path, value in point.items():
            values.setdefault(path, []).append(shown(value))
    return {path: _distribution(found) for path, found in values.items()}


def _distribution(values: list[Any]) -> BaseDistribution:
    kinds = {type(value) for value in values}
    if kinds == {int}:
        return IntDistribution(min(values), max(values))
    if kinds <= {int, float}:
        return FloatDistribution(min(values), max(values))
    return CategoricalDistribution(list(dict.fromkeys(values)))


def grid_parameters(
    point: Mapping[str, Any], distributions: Mapping[str, BaseDistribution], stored: Mapping[str, BaseDistribution]
) -> Parameters:
    """The parameters of one trial, with their distributions.

    Optuna allows one list of choices per study and parameter. A value that an earlier, smaller grid did not have is
    left out here; it stays an attribute of the trial.

    Args:
        point: dimension -> value.
        distributions: from `grid_distributions`.
        stored: of trials that the study has already.
    """
    params, used = {}, {}
    for path, value in point.items():
        distribution, known = distributions[path], stored.get(path)
        if isinstance(known, CategoricalDistribution):
            distribution = known
        held = not isinstance(distribution, CategoricalDistribution) or shown(value) in distribution.choices
        if held and (known is None or type(known) is type(distribution)):
            params[path], used[path] = shown(value), distribution
    return params, used


def stored_distributions(attempts: Iterable[FrozenTrial]) -> dict[str, BaseDistribution]:
    """The distributions of trials that a study has already."""
    return {name: found for attempt in attempts for name, found in attempt.distributions.items()}


def points_of(study: StudySpec, specs: Mapping[str, Mapping[str, Any]]) -> dict[str, Assignment]:
    """The points of a study's space at which trials lie that were not queued by it.

    Args:
        study: a grid.
        specs: key of a trial -> its spec as plain data, which may be invalid.
    Returns:
        Key -> dimension -> value, for every trial and every combination of the space. A value that is no number and
        that the space does not list, such as a pattern that was found, is left out.
    """
    listed: dict[str, Assignment] = {}
    for point in study.assignments():
        with suppress(ValidationError):
            listed[study.trial(point).key] = point
    texts = {(path, shown(value)) for point in listed.values() for path, value in point.items()}
    others = {key: _fields(study, spec) for key, spec in specs.items() if key not in listed}
    return listed | {
        key: {
            path: value for path, value in point.items() if type(value) in (int, float) or (path, shown(value)) in texts
        }
        for key, point in others.items()
    }


def _fields(study: StudySpec, spec: Mapping[str, Any]) -> Assignment:
    """The values of a trial's fields that the study's dimensions set."""
    plain: Any = spec
    with suppress(ValidationError):
        plain = decode(TrialSpec, spec).model_dump(mode="json")
    found: Assignment = {}
    for dimension in (*study.space, *study.tune):
        values = [_value(plain, path) for path in paths_of(dimension)]
        found[dimension] = values[0] if len(values) == 1 else values
    return found


def _value(plain: Any, path: str) -> Any:
    for part in split_path(path):
        plain = plain.get(part) if isinstance(plain, Mapping) else None
    return plain
