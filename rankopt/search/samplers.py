"""Optuna's samplers, each built for one proposal, from a seed and the proposal's number."""

from __future__ import annotations

import copy
import importlib.util
import json
from typing import Annotated, Any, ClassVar

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial
from pydantic import Field

from rankopt.core.seeds import stream
from rankopt.core.space import dimensions
from rankopt.core.spec import StudySpec
from rankopt.search.base import Search
from rankopt.search.pruners import build_pruner

Count = Annotated[int, Field(ge=1)]


class _Sampled(Search):
    """Base of the searches below, whose proposals Optuna draws."""

    def check(self, study: StudySpec) -> None:
        name = study.search.name
        if self.trials is None:
            raise ValueError(f"search.trials must be given under the search {name!r}, for example 60")
        if not study.space:
            raise ValueError(f"space must have a dimension under the search {name!r}")
        if self.single and len(study.objectives) > 1:
            raise ValueError(
                f"objectives must be one under the search {name!r}, got {' and '.join(study.objectives)}; "
                "say objectives: {score: maximize}, and base.budget: {parameters: N}"
            )
        for path, dimension in dimensions(study.space).items():
            values = [json.dumps(value, sort_keys=True) for value in dimension] if isinstance(dimension, list) else []
            if len(set(values)) < len(values):
                raise ValueError(f"space.{path} must list different values under the search {name!r}")
        if self.pruner is not None:
            build_pruner(self.pruner).check(study)

    def _seed(self, index: int) -> int:
        return stream(self.seed, "proposal", index) % 2**32


class Random(_Sampled):
    """Independent draws: the control of every other search.

    Example:
        >>> Random(trials=8).seed
        0
    """

    def sampler(self, index: int) -> BaseSampler:
        return optuna.samplers.RandomSampler(seed=self._seed(index))


class QMC(_Sampled):
    """A scrambled Sobol sequence: draws that fill the space evenly; inner dimensions are drawn independently.

    Source: Bergstra and Bengio 2012 (JMLR 13), who compare it with random search.
    """

    def sampler(self, index: int) -> BaseSampler:
        # one sequence for the whole study: its seed is the study's, and only the place in it moves
        return _Sobol(self.seed, index, optuna.samplers.RandomSampler(seed=self._seed(index)))


class _Sobol(optuna.samplers.QMCSampler):
    """Takes its place in the sequence from the proposal's number, where Optuna counts in the storage: a trial that died
    would leave a gap there, and two workers could take the same place."""

    def __init__(self, seed: int, index: int, independent: BaseSampler) -> None:
        super().__init__(scramble=True, seed=seed, independent_sampler=independent, warn_independent_sampling=False)
        self._index = index

    def _find_sample_id(self, study: optuna.Study, search_space: dict[str, BaseDistribution]) -> int:
        return self._index


class TPE(_Sampled):
    """Tree-structured Parzen estimator: models good and other trials apart, all dimensions jointly.

    Args:
        startup: random trials before the model is used.
        candidates: draws among which the best is taken.

    Source: Bergstra et al. 2011 (NeurIPS); several objectives: Ozaki et al. 2020 (GECCO).
    """

    startup: Count = 10
    candidates: Count = 24

    def sampler(self, index: int) -> BaseSampler:
        return optuna.samplers.TPESampler(
            n_startup_trials=self.startup,
            n_ei_candidates=self.candidates,
            multivariate=True,
            group=True,  # inner dimensions are modelled among the trials that have them
            seed=self._seed(index),
        )


class GP(_Sampled):
    """A Gaussian process with expected (hypervolume) improvement; inner dimensions are drawn independently.

    Args:
        startup: random trials before the model is used.

    Source: Jones et al. 1998 (J. Global Optimization); several objectives: Daulton et al. 2020 (NeurIPS).
    """

    startup: Count = 10

    def sampler(self, index: int) -> BaseSampler:
        return optuna.samplers.GPSampler(
            n_startup_trials=self.startup, seed=self._seed(index), warn_independent_sampling=False
        )


class CMAES(_Sampled):
    """Covariance matrix adaptation, for numbers and one objective; listed values are drawn independently.

    Args:
        startup: random trials before the model is used.

    Source: Hansen 2016 (1604.00772).
    """

    single: ClassVar[bool] = True

    startup: Count = 1

    def check(self, study: StudySpec) -> None:
        if importlib.util.find_spec("cmaes") is None:
            raise ValueError(
                "search.name must be another one where cmaes is not installed; pip install 'rankopt[cmaes]'"
            )
        super().check(study)
        if study.constraints:
            raise ValueError(
                "constraints must be left out under the search 'cmaes', which cannot keep them; "
                "say base.budget: {parameters: N}, or search with tpe, gp or nsga2"
            )

    def sampler(self, index: int) -> BaseSampler:
        return _Numbered(index, n_startup_trials=self.startup, seed=self._seed(index), warn_independent_sampling=False)


class _Numbered(optuna.samplers.CmaEsSampler):
    """Adds the proposal's number to its seed, where Optuna adds the trial's, which moves when a trial dies."""

    def __init__(self, index: int, **options: Any) -> None:
        super().__init__(**options)
        self._index = index

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        numbered = copy.copy(trial)
        numbered.number = self._index
        return super().sample_relative(study, numbered, search_space)


class NSGA2(_Sampled):
    """Evolution by non-dominated sorting and crowding distance.

    Args:
        population: trials in a generation.

    Source: Deb et al. 2002 (IEEE Trans. Evolutionary Computation 6).
    """

    population: Annotated[int, Field(ge=2)] = 16

    def sampler(self, index: int) -> BaseSampler:
        return optuna.samplers.NSGAIISampler(population_size=self.population, seed=self._seed(index))


class NSGA3(_Sampled):
    """Evolution by non-dominated sorting and reference points.

    Args:
        population: trials in a generation.

    Source: Deb and Jain 2014 (IEEE Trans. Evolutionary Computation 18).
    """

    population: Annotated[int, Field(ge=2)] = 16

    def sampler(self, index: int) -> BaseSampler:
        return optuna.samplers.NSGAIIISampler(population_size=self.population, seed=self._seed(index))
