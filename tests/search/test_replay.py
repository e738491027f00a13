"""Searches replayed against a table."""

from __future__ import annotations

import itertools

import pytest

from rankopt.analysis.blackbox import BlackBox, Row
from rankopt.core.spec import Named
from rankopt.search.replay import replay, replayed_search


def box(*, holes: bool = False) -> BlackBox:
    """Sixteen learning rates by sixteen ranks, the best at rank 12; with holes, a third is missing."""
    grid = list(itertools.product(range(16), range(16)))
    return BlackBox(
        [
            Row(
                task="t",
                configuration={"lr": 10.0**-i, "rank": j},
                score=i / 15 - (j - 12) ** 2 / 150,
                parameters=1 + j,
            )
            for number, (i, j) in enumerate(grid)
            if not (holes and number % 3 == 0)
        ]
    )


@pytest.mark.parametrize("name", ["random", "qmc", "tpe", "cmaes", "nsga2", "nsga3", "evolution", "reinforce"])
def test_a_replay_is_reproducible_and_never_gets_worse(name: str) -> None:
    """Of one seed the same steps; the regret of the best so far falls to at least 0, the front's share rises."""
    table, named = box(), Named(name=name)
    steps = replay(table, replayed_search(named, 24, 3, ["score"]))
    assert steps == replay(table, replayed_search(named, 24, 3, ["score"]))
    assert steps != replay(table, replayed_search(named, 24, 4, ["score"]))
    regrets, shares = [step.regret for step in steps], [step.front_share for step in steps]
    assert regrets == sorted(regrets, reverse=True)
    assert min(regrets) >= 0
    assert shares == sorted(shares)
    assert {step.distance for step in steps} == {0.0}  # a full grid has every combination
    assert [step.regret for step in steps] != [regrets[0]] * 24


def last_regret(table: BlackBox, name: str, trials: int, *, mean: bool = False) -> float:
    """The regret after the last trial, summed over ten seeds."""
    searches = (replayed_search(Named(name=name), trials, seed, ["score"]) for seed in range(10))
    return sum(replay(table, search, mean=mean)[-1].regret for search in searches)


@pytest.mark.parametrize("name", ["tpe", "evolution", "reinforce"])
def test_it_finds_a_better_configuration_than_random(name: str) -> None:
    """After forty trials on a smooth table of 256 configurations."""
    assert last_regret(box(), name, 40) < last_regret(box(), "random", 40)


def test_proposals_that_the_table_lacks_have_a_distance() -> None:
    steps = replay(box(holes=True), replayed_search(Named(name="random"), 60, 0, ["score"]))
    unseen = [step.distance for step in steps if step.distance > 0]
    assert 5 < len(unseen) < 40
    assert max(unseen) == pytest.approx(1 / 15 / 2)  # one index of sixteen away, in one of two dimensions


def test_two_objectives() -> None:
    steps = replay(box(), replayed_search(Named(name="nsga2"), 40, 0, ["score", "parameters"]), ["score", "parameters"])
    assert steps[-1].front_share > 0.5


def test_trainings_are_drawn_or_averaged() -> None:
    """With one training per proposal, luck may choose the worse configuration; with the mean it cannot."""
    table = BlackBox(
        [
            Row(task="t", configuration={"a": a}, seed=seed, score=a / 10 + 5 * (seed == 0) + seed / 1000, parameters=1)
            for a in (0, 1)
            for seed in range(8)
        ]
    )
    assert last_regret(table, "random", 8, mean=True) == 0
    assert last_regret(table, "random", 8) > 0


@pytest.mark.parametrize(
    ("named", "objectives", "message"),
    [
        (Named(name="grid"), ["score"], "--search must be one that proposes trials, got 'grid'"),
        (Named(name="tpee"), ["score"], "did you mean 'tpe'"),
        (Named(name="cmaes"), ["score", "parameters"], "--objectives must be score with the search 'cmaes'"),
    ],
)
def test_searches_that_cannot_be_replayed(named: Named, objectives: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replayed_search(named, 5, 0, objectives)
