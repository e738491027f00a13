"""The shares of a search's dimensions, where few trials have been made."""

from __future__ import annotations

from collections import Counter
from random import Random
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from optuna.distributions import FloatDistribution

from rankopt.study.dimension_importance import LEAST, importances

# the package quiets these itself; pytest forgets that before every test
pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")


def search(names: str, trials: int, seed: int) -> Any:
    """A store with a study of random trials, whose score is a hill in the first dimension and noise."""
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


def test_a_dimension_that_decides_is_found_among_few_trials() -> None:
    """Two trials, the best tenth of 16, name the right one of nine dimensions about every other time."""
    first = Counter(next(iter(importances(search("abcdefghi", 16, seed), SPEC)["score"])) for seed in range(12))
    assert first["a"] >= 10
    assert next(iter(importances(search("abcdefghi", 16, 0), SPEC)["parameters"])) == "i"


def test_what_breaks_the_constraint_is_not_among_the_best() -> None:
    """The dear trials score best by one dimension; among those that fit the other one decides."""
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


def test_what_is_the_same_for_all_is_not_asked_about() -> None:
    store = search("abc", 20, 0)
    for trial in store.study.get_trials(deepcopy=False):
        trial.values = [0.0, trial.values[1]]
    assert set(importances(store, SPEC)) == {"parameters"}


def test_shares_sum_to_one_and_need_trials() -> None:
    shares = importances(search("abc", LEAST, 0), SPEC)
    assert set(shares) == {"front", "score", "parameters"}
    assert all(sum(found.values()) == pytest.approx(1) for found in shares.values())
    assert importances(search("abc", LEAST - 1, 0), SPEC) == {}
