"""The policy: its gradient, its ranges and what it learns."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from recorded_trials import Space, proposal, recorded

from rankopt.search.reinforce import Reinforce, cells, softmax

SPACE: Space = {"kind": CategoricalDistribution(["a", "b", "c"]), "rank": IntDistribution(1, 4)}


def policy(trials: list[tuple[dict[str, Any], float]], **options: Any) -> dict[str, list[float]]:
    """The logits after some trials."""
    study = recorded(SPACE, trials)
    sampler = Reinforce(trials=99, **options).sampler(len(trials))
    sampler.before_trial(study, study.ask()._cached_frozen_trial)
    return sampler._logits  # type: ignore[attr-defined, no-any-return]


def test_updates_are_the_gradient_of_the_log_probability() -> None:
    """Against autograd, with the moving baseline and the standard deviation of the scores so far."""
    trials = [
        ({"kind": "a", "rank": 1}, 0.2), ({"kind": "b", "rank": 3}, 0.8), ({"kind": "c", "rank": 3}, 0.3),
        ({"kind": "b", "rank": 4}, 0.9),
    ]  # fmt: skip
    logits = {"kind": torch.zeros(3), "rank": torch.zeros(4)}
    baseline, scores = trials[0][1], [trials[0][1]]
    for params, score in trials[1:]:
        scores.append(score)
        advantage = (score - baseline) / torch.tensor(scores).std(correction=0)
        for name, index in {"kind": "abc".index(params["kind"]), "rank": params["rank"] - 1}.items():
            theta = logits[name].clone().requires_grad_(True)
            theta.log_softmax(0)[index].backward()
            logits[name] = logits[name] + 0.5 * advantage * theta.grad
        baseline = 0.7 * baseline + 0.3 * score
    found = policy(trials, lr=0.5, decay=0.7)
    for name, values in logits.items():
        assert found[name] == pytest.approx(values.tolist(), abs=1e-6)


def test_without_a_difference_nothing_is_learnt() -> None:
    assert policy([({"kind": "a", "rank": 1}, 0.5)] * 4) == {}


def test_an_inner_dimension_learns_from_the_trials_that_have_it() -> None:
    found = policy([({"kind": "a"}, 0.1), ({"kind": "b", "rank": 2}, 0.9), ({"kind": "a"}, 0.1)])
    assert found["rank"].index(max(found["rank"])) == 1
    assert found["kind"].index(max(found["kind"])) == 1


def test_it_draws_more_of_what_scored_better() -> None:
    trials = [({"kind": kind, "rank": rank}, float(kind == "b")) for kind in "abcb" for rank in (1, 2)] * 4
    study = recorded(SPACE, trials)
    drawn = Counter(proposal(study, SPACE, Reinforce(trials=99, seed=s).sampler(32))["kind"] for s in range(60))
    assert drawn["b"] > 35


@pytest.mark.parametrize(
    ("dimension", "parts"),
    [
        (FloatDistribution(1e-4, 1e-2, log=True), 8),
        (IntDistribution(1, 100), 8),
        (IntDistribution(1, 4), 4),
        (IntDistribution(3, 3), 1),
    ],
    ids=["float", "many integers", "few integers", "one value"],
)
def test_parts_of_a_range_cover_it(dimension: Any, parts: int) -> None:
    """A uniform policy draws from every part, and only values of the range."""
    assert cells(dimension) == parts
    study = recorded({}, [])
    values = [proposal(study, {"x": dimension}, Reinforce(trials=99, seed=s).sampler(0))["x"] for s in range(80)]
    assert all(dimension.low <= value <= dimension.high for value in values)
    assert len(set(values)) >= parts


def test_softmax_of_large_logits() -> None:
    assert softmax([1000.0, 0.0]) == pytest.approx([1.0, 0.0])
