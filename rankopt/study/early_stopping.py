"""Early stopping: what one attempt reports to Optuna's pruner and constraint, and when it is pruned."""

from __future__ import annotations

from statistics import fmean

import optuna

from rankopt.core.progress import Progress
from rankopt.core.study_spec import StudySpec
from rankopt.search.pruners import Dominated, Interim, Pruner, build_pruner
from rankopt.study.attempts import INTERIM
from rankopt.study.storage import StudyStore


class EarlyStopping:
    """The scores of one attempt. Its methods raise `optuna.TrialPruned`, with the reason, where it must stop.

    An attempt that continues an earlier one has the earlier one's scores. What it reports again, because it continues
    from a checkpoint, is the same and changes nothing.

    Args:
        trial: the attempt.
        store: its study.
        study: its spec.
    """

    def __init__(self, trial: optuna.Trial, store: StudyStore, study: StudySpec) -> None:
        self.trial, self.store, self.limit = trial, store, study.constraints.get("parameters")
        self.falling = study.objectives.get("score") == "minimize"
        self.pruner: Pruner | None = build_pruner(store.search.pruner) if store.search.pruner else None
        self.evaluations = self.pruner.evaluations if self.pruner else 0
        self._count = 0

    def evaluated(self, progress: Progress) -> None:
        """Record the scores of an evaluation during training."""
        self._count += 1
        interim = list(self.trial.user_attrs.get(INTERIM, []))
        interim[self._count - 1 : self._count] = [list(progress.values.values())]
        self.trial.set_user_attr(INTERIM, interim)
        mine = Interim(self._count, **progress.values)
        # its pattern is fixed, so it keeps these parameters; the pruner must not compare others with it
        if self.constrain(mine.parameters) > 0:
            raise optuna.TrialPruned(
                f"pruned: {mine.parameters:,.0f} parameters, more than the constraint of {self.limit:,}"
            )
        if isinstance(self.pruner, Dominated):
            others = [other for other in self.store.trials() if other.number != self.trial.number]
            rows = [Interim(n, *row) for other in others for n, row in enumerate(other.user_attrs.get(INTERIM, []), 1)]
            worse = self.pruner.dominated(mine, rows, self.falling)
        else:
            worse = self._report(mine.score, mine.evaluation)
        if worse:
            raise optuna.TrialPruned(f"pruned at evaluation {mine.evaluation}: search score {mine.score:.4f}")

    def trained(self, scores: list[float], last: bool) -> None:
        """Record the score of one of several trainings, where the pruner compares trainings."""
        if self.pruner is None or self.pruner.evaluations:
            return
        if self._report(scores[-1], len(scores)) and not last:
            raise optuna.TrialPruned(f"pruned after {len(scores)} trainings: mean search score {fmean(scores):.4f}")

    def constrain(self, parameters: float) -> float:
        """Tell the sampler by how much the attempt exceeds the study's constraint, if there is one; also returned."""
        if self.limit is None:
            return 0.0
        excess = float(parameters - self.limit)
        if "parameters" not in self.trial.constraints:  # Optuna takes it once
            self.trial.set_constraint("parameters", excess)
        return excess

    def _report(self, score: float, step: int) -> bool:
        """Report a score; whether the pruner stops the attempt."""
        if step not in self.store.frozen(self.trial).intermediate_values:
            self.trial.report(score, step)
        return self.trial.should_prune()
