"""A grid's dimensions as Optuna's parameters, so that the plots of optuna-dashboard show them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

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
