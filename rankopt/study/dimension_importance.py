"""Which dimensions of a search matter."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from rankopt.core.spec import StudySpec

if TYPE_CHECKING:
    from rankopt.study.storage import StudyStore

LEAST = 10
"""Complete trials with a dimension, below which its share would be noise."""

BEST = 8
"""Trials at least that count as the best: the densities of two or three say nothing of where they lie."""


def importances(store: StudyStore, spec: StudySpec) -> dict[str, dict[str, float]]:
    """How much each dimension decides whether a trial is among the best, by PED-ANOVA.

    A share compares the density of the best trials along a dimension with that of all of them: of the best tenth, or
    of the best eight where a tenth is fewer, or of the better half where that is fewer still. An inner dimension is
    looked at among the trials that have it. A trial beyond the study's constraint is no candidate and is left out.

    Args:
        store: an open study.
        spec: its spec.
    Returns:
        What is asked about ("front", when there are several objectives, and each objective) -> dimension -> share,
        summing to 1, largest first, of the dimensions that `LEAST` complete trials have; empty with fewer than two.
        What is the same for all trials is not asked about.

    Source: Watanabe et al. 2023 (2304.10255); the floor of eight is ours.
    """
    import warnings

    import optuna
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
    from optuna.trial import FrozenTrial, TrialState

    complete = [trial for trial in store.trials(TrialState.COMPLETE) if max(trial.constraints.values(), default=0) <= 0]
    having = Counter(name for trial in complete for name in trial.params)
    if sum(number >= LEAST for number in having.values()) < 2:
        return {}
    study = optuna.create_study(directions=store.study.directions)
    study.add_trials(complete)
    evaluator = PedAnovaImportanceEvaluator(target_quantile=min(0.5, max(0.1, BEST / len(complete))))

    def shares(objective: int | None = None, sign: float = 1.0) -> dict[str, float]:
        def target(trial: FrozenTrial) -> float:
            return sign * float(trial.values[objective or 0])

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a target is minimised, which the sign sees to
            found = get_param_importances(study, evaluator=evaluator, target=None if objective is None else target)
        found = {name: share for name, share in found.items() if having[name] >= LEAST}
        total = sum(found.values())
        return {name: share / total if total else 0.0 for name, share in found.items()}

    each: dict[str, dict[str, float]] = {
        name: shares(place, -1.0 if direction == "maximize" else 1.0)
        for place, (name, direction) in enumerate(spec.objectives.items())
        if len({trial.values[place] for trial in complete}) > 1
    }
    return {"front": shares(), **each} if len(each) > 1 else each
