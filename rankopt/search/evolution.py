"""Regularised evolution: children of good trials replace the oldest ones."""

from __future__ import annotations

import random
from typing import Annotated, Any, ClassVar

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial
from pydantic import Field

from rankopt.search.base import Count
from rankopt.search.sampled import RecordSampler, Sampled, record, share_of, value_at

STEP = 0.15
"""Standard deviation of a mutation of a number, as a share of its range."""


class Evolution(Sampled):
    """Change one dimension of the best of a few trials, drawn from the youngest ones.

        population = the last P complete trials;   parent = the best of S of them, drawn at random
        child = the parent with another value in one dimension, drawn at random

    A listed value becomes any other one. A number moves by a normal step of 15 % of its range. Inner dimensions that
    the parent does not have are drawn at random. A trial that violates a constraint is worse than all that do not.

    Args:
        population: trials that can become parents, P; the first P proposals are random.
        sample: trials that compete to become the parent, S.
    Example:
        >>> Evolution(trials=40).sample
        5

    Source: Real et al. 2019 (1802.01548), aging evolution; P = 100 and S = 25 there. Departure: a number moves a step,
    where they draw a new one.
    """

    single: ClassVar[bool] = True

    population: Annotated[int, Field(ge=2, le=100_000)] = 10
    sample: Count = 5

    def sampler(self, index: int) -> BaseSampler:
        return _Child(self._seed(index), self.population, self.sample)


class _Child(RecordSampler):
    """Draws one child, or a random point while the population is incomplete."""

    def __init__(self, seed: int, population: int, sample: int) -> None:
        self._draw, self._population, self._sample = random.Random(seed), population, sample
        self._parent: dict[str, Any] | None = None
        self._mutated = ""

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        known = record(study)
        if len(known) < self._population:
            return
        youngest = known[-self._population :]
        drawn = self._draw.sample(youngest, min(self._sample, len(youngest)))
        best, _ = max(drawn, key=lambda pair: (-_excess(pair[0]), pair[1], -pair[0].number))
        self._parent = best.params
        able = [name for name, dimension in sorted(best.distributions.items()) if not dimension.single()]
        self._mutated = self._draw.choice(able) if able else ""

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        if self._parent is None or param_name not in self._parent:
            return value_at(param_distribution, self._draw.random())
        value = self._parent[param_name]
        return self._changed(param_distribution, value) if param_name == self._mutated else value

    def _changed(self, dimension: BaseDistribution, value: Any) -> Any:
        """Another value of a dimension."""
        if isinstance(dimension, CategoricalDistribution):
            return self._draw.choice([other for other in dimension.choices if other != value])
        while True:
            share = share_of(dimension, value) + self._draw.gauss(0.0, STEP)
            if 0 <= share < 1 and (changed := value_at(dimension, share)) != value:
                return changed


def _excess(trial: FrozenTrial) -> float:
    return max(0.0, *trial.constraints.values()) if trial.constraints else 0.0
