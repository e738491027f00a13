"""A study with known trials, and what a sampler proposes next, for the tests of samplers that draw from the record."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler

Space = dict[str, BaseDistribution]


def recorded(space: Space, trials: Sequence[tuple[dict[str, Any], float]]) -> optuna.Study:
    """A study that maximises, with the given parameters and values."""
    study = optuna.create_study(direction="maximize")
    for params, value in trials:
        distributions = {name: space[name] for name in params}
        study.add_trial(optuna.create_trial(params=params, distributions=distributions, value=value))
    return study


def proposal(study: optuna.Study, space: Space, sampler: BaseSampler) -> dict[str, Any]:
    """The next point of a flat space."""
    study.sampler = sampler
    return study.ask(space).params
