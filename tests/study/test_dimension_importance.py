"""The importance of a search's dimensions, from few trials."""

from __future__ import annotations

from collections import Counter
from random import Random
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from fresh_process import python
from optuna.distributions import FloatDistribution

from rankopt.study.dimension_importance import MIN_TRIALS, importances

# the package ignores this warning itself; pytest resets filters before every test
pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")


def search(names: str, trials: int, seed: int) -> Any:
    """A store of random trials whose score is a hill in the first dimension plus noise."""
    random = Random(seed)
    study = optuna.create_study(directions=["maximize", "minimize"])
    for _ in range(trials):
        params = {name: random.random() for name in names}
        score = -((params[names[0]] - 0.7) ** 2) + random.gauss(0, 0.05)
        study.add_trial(
            optuna.create_trial(
                params=params,
                distributions=dict.fromkeys(params, FloatDistribution(0, 1)),
                values=[score, params[names[-1]]],
            )
        )
    return SimpleNamespace(study=study, trials=lambda *states: study.get_trials(states=states or None))


SPEC: Any = SimpleNamespace(objectives={"score": "maximize", "parameters": "minimize"})


def test_the_important_dimension_is_found_in_few_trials() -> None:
    """16 trials are enough, because at least eight count as the best; with the best tenth (two trials) they are not."""
    first = Counter(next(iter(importances(search("abcdefghi", 16, seed), SPEC)["score"])) for seed in range(12))
    assert first["a"] >= 10
    assert next(iter(importances(search("abcdefghi", 16, 0), SPEC)["parameters"])) == "i"


def test_trials_beyond_the_constraint_are_ignored() -> None:
    """One dimension decides among the trials beyond the constraint, the other among those within it."""
    study, random = optuna.create_study(direction="maximize"), Random(0)
    for _ in range(60):
        params = {"rank": random.random(), "lr": random.random()}
        score = 10.0 if params["rank"] > 0.5 else -abs(params["lr"] - 0.3)
        study.add_trial(
            optuna.create_trial(
                params=params, distributions=dict.fromkeys(params, FloatDistribution(0, 1)), value=score,
                constraints={"parameters": params["rank"] - 0.5},
            )
        )  # fmt: skip
    store: Any = SimpleNamespace(study=study, trials=lambda *states: study.get_trials(states=states or None))
    shares = importances(store, SimpleNamespace(objectives={"score": "maximize"}))["score"]
    assert shares["lr"] > 0.8


def test_a_constant_objective_is_left_out() -> None:
    store = search("abc", 20, 0)
    for trial in store.study.get_trials(deepcopy=False):
        trial.values = [0.0, trial.values[1]]
    assert set(importances(store, SPEC)) == {"parameters"}


def test_shares_sum_to_one_and_need_trials() -> None:
    shares = importances(search("abc", MIN_TRIALS, 0), SPEC)
    assert set(shares) == {"front", "score", "parameters"}
    assert all(sum(found.values()) == pytest.approx(1) for found in shares.values())
    assert importances(search("abc", MIN_TRIALS - 1, 0), SPEC) == {}


def test_other_evaluators_and_their_libraries_are_not_imported() -> None:
    """A report takes a second less without scikit-learn, and Optuna's whole package can still be imported."""
    code = (
        "import sys; from rankopt.study.dimension_importance import _ped_anova; found = _ped_anova();"
        "loaded = {'sklearn', 'torch', 'optuna.importance'} & set(sys.modules);"
        "from optuna.importance import FanovaImportanceEvaluator, PedAnovaImportanceEvaluator;"
        "print(sorted(loaded), found is PedAnovaImportanceEvaluator)"
    )
    assert python(code).strip() == "[] True"
