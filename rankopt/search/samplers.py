"""Searches by Optuna's samplers, each built for one proposal from the seed and the proposal's number."""

from __future__ import annotations

import copy
import importlib.util
from typing import Annotated, Any, ClassVar

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial
from pydantic import Field

from rankopt.core.study_spec import StudySpec
from rankopt.search.base import Count
from rankopt.search.sampled import Sampled


class Random(Sampled):
    """Independent random proposals: the baseline of every other search.

    Example:
        >>> Random(trials=8).seed
        0
    """

    def sampler(self, index: int) -> BaseSampler:
        return optuna.samplers.RandomSampler(seed=self._seed(index))


class QMC(Sampled):
    """Scrambled Sobol sequence, which covers the space evenly; inner dimensions are drawn independently.

    Source: Bergstra and Bengio 2012 (JMLR 13), who compare such sequences with random search.
    """

    def sampler(self, index: int) -> BaseSampler:
        # the whole study shares one sequence, so its seed is fixed and only the index moves
        return _Sobol(self.seed, index, optuna.samplers.RandomSampler(seed=self._seed(index)))


class _Sobol(optuna.samplers.QMCSampler):
    """Uses the proposal's number as index in the sequence.

    Optuna counts in the storage, where lost trials leave gaps and two workers can get the same index.
    """

    def __init__(self, seed: int, index: int, independent: BaseSampler) -> None:
        super().__init__(scramble=True, seed=seed, independent_sampler=independent, warn_independent_sampling=False)
        self._index = index

    def _find_sample_id(self, study: optuna.Study, search_space: dict[str, BaseDistribution]) -> int:
        return self._index


class TPE(Sampled):
    """Tree-structured Parzen estimator: densities of good and of other trials, over all dimensions jointly.

    Args:
        startup: random trials before the model is used.
        candidates: samples of which the best is proposed.

    Source: Bergstra et al. 2011 (NeurIPS); several objectives: Ozaki et al. 2020 (GECCO).
    """

    startup: Count = 10
    candidates: Count = 24

    def sampler(self, index: int) -> BaseSampler:
        return optuna.samplers.TPESampler(
            n_startup_trials=self.startup,
            n_ei_candidates=self.candidates,
            multivariate=True,
            group=True,  # inner dimensions are modelled over the trials that have them
            seed=self._seed(index),
        )


class GP(Sampled):
    """Gaussian process with expected (hypervolume) improvement; inner dimensions are drawn independently.

    Args:
        startup: random trials before the model is used.

    Source: Jones et al. 1998 (J. Global Optimization); several objectives: Daulton et al. 2020 (NeurIPS).
    """

    startup: Count = 10

    def sampler(self, index: int) -> BaseSampler:
        return optuna.samplers.GPSampler(
            n_startup_trials=self.startup, seed=self._seed(index), warn_independent_sampling=False
        )


class CMAES(Sampled):
    """CMA-ES, for numeric dimensions and one objective; listed values are drawn independently.

    Args:
        startup: random trials before the model is used.

    Source: Hansen 2016 (1604.00772).
    """

    single: ClassVar[bool] = True
    constrained: ClassVar[bool] = False

    startup: Count = 1

    def check(self, study: StudySpec) -> None:
        if importlib.util.find_spec("cmaes") is None:
            raise ValueError("search 'cmaes' needs the cmaes package: pip install 'rankopt[cmaes]'")
        super().check(study)

    def sampler(self, index: int) -> BaseSampler:
        return _Numbered(index, n_startup_trials=self.startup, seed=self._seed(index), warn_independent_sampling=False)


class _Numbered(optuna.samplers.CmaEsSampler):
    """Adds the proposal's number to the seed. Optuna adds the trial's number, which a retried attempt changes."""

    def __init__(self, index: int, **options: Any) -> None:
        super().__init__(**options)
        self._index = index

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        numbered = copy.copy(trial)
        numbered.number = self._index
        return super().sample_relative(study, numbered, search_space)


class NSGA2(Sampled):
    """NSGA-II: evolution by non-dominated sorting and crowding distance.

    Args:
        population: trials per generation.

    Source: Deb et al. 2002 (IEEE Trans. Evolutionary Computation 6).
    """

    population: Annotated[int, Field(ge=2, le=100_000)] = 16

    def sampler(self, index: int) -> BaseSampler:
        return optuna.samplers.NSGAIISampler(population_size=self.population, seed=self._seed(index))


class NSGA3(Sampled):
    """NSGA-III: evolution by non-dominated sorting and reference points.

    Args:
        population: trials per generation.

    Source: Deb and Jain 2014 (IEEE Trans. Evolutionary Computation 18).
    """

    population: Annotated[int, Field(ge=2, le=100_000)] = 16

    def sampler(self, index: int) -> BaseSampler:
        return optuna.samplers.NSGAIIISampler(population_size=self.population, seed=self._seed(index))
