"""Proposals: the sampler's answers as a point of the space."""

from __future__ import annotations

import optuna

from rankopt.core.space import FloatRange, IntRange
from rankopt.study.proposals import propose

SPACE = {
    "allocator": [{"name": "uniform"}, {"name": "ramp", "ratio": {"float": [1.0, 9.0]}}],
    "budget.mean_rank": IntRange(int=(1, 8), log=True),
    "training.lr": FloatRange(float=(1e-4, 1e-2), log=True),
}


def asked(params: dict[str, object]) -> dict[str, object]:
    return propose(SPACE, optuna.trial.FixedTrial(params))


def test_a_point_of_the_space() -> None:
    """A listed value is chosen by its printed form; an inner dimension is asked for only where it exists."""
    base = {"budget.mean_rank": 4, "training.lr": 1e-3}
    assert asked({**base, "allocator": "uniform"}) == {**base, "allocator": {"name": "uniform"}}
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    points = [propose(SPACE, study.ask()) for _ in range(20)]
    ratios = [point["allocator"].get("ratio") for point in points]
    assert None in ratios
    assert all(ratio is None or 1.0 <= ratio <= 9.0 for ratio in ratios)
    assert all(1 <= point["budget.mean_rank"] <= 8 and 1e-4 <= point["training.lr"] <= 1e-2 for point in points)


def test_a_later_attempt_gets_the_same_point() -> None:
    """Optuna answers from the parameters that the first attempt recorded."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    first = study.ask()
    point = propose(SPACE, first)
    study.enqueue_trial(first.params)
    assert propose(SPACE, study.ask()) == point
