"""How much each dimension of a search matters, by PED-ANOVA."""

from __future__ import annotations

import sys
from collections import Counter
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from rankopt.core.study_spec import StudySpec

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from rankopt.study.storage import StudyStore

MIN_TRIALS = 10
"""A dimension needs this many complete trials; with fewer its share would be noise."""

MIN_BEST = 8
"""At least this many trials count as the best; the density of two or three trials means little."""


def importances(store: StudyStore, spec: StudySpec) -> dict[str, dict[str, float]]:
    """How much each dimension decides whether a trial is among the best, by PED-ANOVA.

    The share of a dimension compares the density of the best trials along it with the density of all trials. The best
    trials are the best tenth, but at least `MIN_BEST`, and at most the better half. Only trials that have a dimension
    and satisfy the study's constraint are compared.

    Returns:
        Target -> dimension -> share; shares sum to 1, the largest first. The targets are the objectives whose values
        differ, and "front" if there are several. Only dimensions of at least `MIN_TRIALS` complete trials are
        included; the result is empty if there are fewer than two of them.

    Source: Watanabe et al. 2023 (2304.10255), except `MIN_BEST`.
    """
    import warnings

    import optuna
    from optuna.trial import TrialState

    complete = [trial for trial in store.trials(TrialState.COMPLETE) if max(trial.constraints.values(), default=0) <= 0]
    having = Counter(name for trial in complete for name in trial.params)
    if sum(number >= MIN_TRIALS for number in having.values()) < 2:
        return {}
    study = optuna.create_study(directions=store.study.directions)
    study.add_trials([_bare(trial) for trial in complete])
    evaluator = _ped_anova()(target_quantile=min(0.5, max(0.1, MIN_BEST / len(complete))))

    def shares(objective: int | None = None, sign: float = 1.0) -> dict[str, float]:
        def target(trial: FrozenTrial) -> float:
            return sign * float(trial.values[objective or 0])

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a warning about minimised targets, which `sign` handles
            found = evaluator.evaluate(study, target=None if objective is None else target)
        found = {name: share for name, share in found.items() if having[name] >= MIN_TRIALS}
        total = sum(found.values())
        return {name: share / total if total else 1 / len(found) for name, share in found.items()}

    each: dict[str, dict[str, float]] = {
        name: shares(index, -1.0 if direction == "maximize" else 1.0)
        for index, (name, direction) in enumerate(spec.objectives.items())
        if len({trial.values[index] for trial in complete}) > 1
    }
    return {"front": shares(), **each} if len(each) > 1 else each


def _ped_anova() -> Any:
    """Optuna's evaluator, without the package that holds it: its other evaluators import scikit-learn for a second."""
    import optuna

    name = "optuna.importance"
    if name in sys.modules:
        return sys.modules[name].PedAnovaImportanceEvaluator
    package = sys.modules[name] = ModuleType(name)
    package.__path__ = [str(Path(optuna.__file__).parent / "importance")]
    try:
        return import_module(f"{name}._ped_anova").PedAnovaImportanceEvaluator
    finally:
        del sys.modules[name]


def _bare(trial: FrozenTrial) -> FrozenTrial:
    """A complete trial without its attributes, which Optuna would copy: a result is thousands of values."""
    from optuna.trial import create_trial

    return create_trial(values=trial.values, params=trial.params, distributions=trial.distributions)
