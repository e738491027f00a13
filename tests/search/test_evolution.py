"""Regularised evolution: parents, mutations and what it finds."""

from __future__ import annotations

from collections import Counter

import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from recorded_trials import Space, proposal, recorded

from rankopt.search.evolution import Evolution

SPACE: Space = {
    "kind": CategoricalDistribution(["a", "b", "c"]),
    "rank": IntDistribution(1, 8),
    "lr": FloatDistribution(1e-4, 1e-2, log=True),
}
BEST = {"kind": "b", "rank": 5, "lr": 1e-3}
OTHER = {"kind": "a", "rank": 1, "lr": 5e-3}


def test_a_child_differs_from_the_best_in_one_dimension() -> None:
    """With all of the population in the sample, the parent is the best; every dimension is mutated at times."""
    study = recorded(SPACE, [(OTHER, 0.1), (BEST, 0.9), (OTHER, 0.2)])
    changed: Counter[str] = Counter()
    for seed in range(60):
        child = proposal(study, SPACE, Evolution(trials=9, population=3, sample=3, seed=seed).sampler(3))
        differing = [name for name in SPACE if child[name] != BEST[name]]
        assert len(differing) == 1
        changed.update(differing)
    assert min(changed[name] for name in SPACE) > 10


def test_the_oldest_trials_have_no_children() -> None:
    study = recorded(SPACE, [(BEST, 0.9), (OTHER, 0.1), (OTHER, 0.2)])
    child = proposal(study, SPACE, Evolution(trials=9, population=2, sample=2).sampler(3))
    assert sum(child[name] == OTHER[name] for name in SPACE) == 2


def test_the_first_population_is_random() -> None:
    study = recorded(SPACE, [(BEST, 0.9)] * 2)
    points = [proposal(study, SPACE, Evolution(trials=9, population=3, seed=s).sampler(2)) for s in range(8)]
    assert len({point["lr"] for point in points}) == 8


def test_a_violated_constraint_is_worse_than_any_score() -> None:
    study = optuna.create_study(direction="maximize")
    for params, value, excess in [(BEST, 0.9, 5.0), (OTHER, 0.1, -1.0)]:
        study.enqueue_trial(params)
        trial = study.ask(SPACE)
        trial.set_constraint("parameters", excess)
        study.tell(trial, value)
    child = proposal(study, SPACE, Evolution(trials=9, population=2, sample=2).sampler(2))
    assert sum(child[name] == OTHER[name] for name in SPACE) == 2


def test_a_dimension_that_the_parent_lacks_is_drawn() -> None:
    """An inner dimension of a value that the mutation chose."""
    study = recorded(SPACE, [({"kind": "a"}, 0.5)] * 2)
    child = proposal(study, SPACE, Evolution(trials=9, population=2).sampler(2))
    assert child["kind"] != "a"
    assert 1 <= child["rank"] <= 8
