"""Optuna's proposals as trials of a study."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from rankopt.core.space import Dimension, IntRange, settle
from rankopt.search.base import Search
from rankopt.study.attempts import INDEX, KEY, proposal_index
from rankopt.study.storage import shown


class ProposalSampler(BaseSampler):
    """Builds a search's sampler anew for every proposal.

    Optuna stores no generator, so a sampler that lives on would propose other points after a restart. One that is made
    from (seed, number of the proposal) and the study's record proposes what the uninterrupted search would have.

    Args:
        search: builds the samplers.
        trials: the study's, all of them: Hyperband shows a sampler those of one bracket.
    """

    def __init__(self, search: Search, trials: Callable[[], list[FrozenTrial]]) -> None:
        self._search, self._trials = search, trials
        self._sampler: BaseSampler = optuna.samplers.RandomSampler(seed=0)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        index = proposal_index(self._trials(), trial.number)
        if KEY not in trial.user_attrs:  # else another try of an earlier trial
            study._storage.set_trial_user_attr(trial._trial_id, INDEX, index)
        self._sampler = self._search.sampler(index)
        self._sampler.before_trial(study, trial)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._sampler.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._sampler.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._sampler.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(
        self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        self._sampler.after_trial(study, trial, state, values)


def propose(space: Mapping[str, Dimension], trial: optuna.Trial) -> dict[str, Any]:
    """The point of a space that Optuna suggests for a trial; a copy gets the point of the trial that it continues."""
    return settle(space, partial(_suggest, trial))


def _suggest(trial: optuna.Trial, name: str, dimension: Dimension) -> Any:
    if isinstance(dimension, list):
        labels = [shown(value) for value in dimension]
        return labels.index(trial.suggest_categorical(name, labels))
    if isinstance(dimension, IntRange):
        return trial.suggest_int(name, *dimension.bounds, log=dimension.log, step=dimension.step)
    return trial.suggest_float(name, *dimension.bounds, log=dimension.log)
