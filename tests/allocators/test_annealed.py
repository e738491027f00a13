"""Annealed truncation: when it cuts and to what, what a cut keeps, and training in between."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from rankopt.allocators.annealed import Annealed
from rankopt.core.budget import Budget
from rankopt.lowrank.layers import pattern_of, shapes_of


def test_the_budgets_fall_geometrically(lab: Any) -> None:
    """From rank 4 to rank 1 in two stages: by way of rank 2."""
    training = lab.Training(Annealed(stages=2, recovery=4.0), Budget(mean_rank=1)).advance()
    assert [pattern.total for pattern in training.trace] == [20] * 4 + [10] * 4 + [5] * 5


@pytest.mark.parametrize("unit", ["ranks", "parameters"])
@pytest.mark.parametrize("rule", ["uniform", "global", "cost"])
def test_every_stage_fits_its_budget(rule: Any, unit: Any, lab: Any) -> None:
    budget = Budget(mean_rank=1.3, unit=unit)
    training = lab.Training(Annealed(rule=rule, stages=3, recovery=0.0), budget)
    shapes, full = shapes_of(training.layers), 4 * sum(budget.cost(s) for s in shapes_of(training.layers).values())
    for stage in (1, 2, 3):
        training.advance(4 * stage)
        allowed = round(full * (budget.amount(shapes) / full) ** (stage / 3))
        assert budget.spent(pattern_of(training.layers), shapes) <= allowed
        left = allowed - budget.spent(pattern_of(training.layers), shapes)
        room = [name for name, layer in training.layers.items() if layer.rank < 4 and rule != "uniform"]
        assert all(budget.cost(shapes[name]) > left for name in room)


def test_a_cut_is_the_best_approximation_of_its_rank(lab: Any) -> None:
    """Under the rule "uniform" every layer becomes its own truncated singular value decomposition."""
    training = lab.Training(Annealed(stages=2, recovery=4.0), Budget(mean_rank=1)).advance(3)
    before: dict[str, torch.Tensor] = {}
    lab.after_optimizer(training, lambda: before.update({n: it.update() for n, it in training.layers.items()}))
    training.advance(4)
    for name, layer in training.layers.items():
        U, S, Vh = torch.linalg.svd(before[name])
        torch.testing.assert_close(layer.update(), (U[:, :2] * S[:2]) @ Vh[:2], atol=1e-5, rtol=1e-4)


def test_what_is_kept_trains_on_with_the_size_of_its_second_moments(lab: Any) -> None:
    """First moments are zero after a cut, second moments the mean over components: none is zero."""
    training = lab.Training(Annealed(stages=2, recovery=4.0), Budget(mean_rank=1)).advance(4)
    for layer in training.layers.values():
        moments = training.optimizer.state[layer.A]
        assert not moments["exp_avg"][:2].any()
        torch.testing.assert_close(moments["exp_avg_sq"][0], moments["exp_avg_sq"][1])
        assert moments["exp_avg_sq"][:2].all()
    at_cut = training.weights()
    training.advance(5)
    now = training.weights()
    for name in training.layers:
        assert ((now[f"{name}.A"] - at_cut[f"{name}.A"]).abs().sum(1) > 0).tolist() == [True, True, False, False]


def test_room_left_is_used_by_components_that_begin_as_in_lora(lab: Any) -> None:
    """A budget for one small layer's component, below what the stage before kept."""
    training = lab.Training(Annealed(rule="global", stages=1, recovery=4.0), Budget(parameters=32)).advance(8)
    assert pattern_of(training.layers).total == 1
    start = lab.Training(Annealed(), Budget(mean_rank=1))
    for name, layer in training.layers.items():
        assert torch.equal(layer.A[4:], start.layers[name].A[4:])
    reduced = lab.Training(Annealed(initial_rank=1, stages=2), Budget(mean_rank=2)).advance(5)
    assert all(layer.rank == 2 for layer in reduced.layers.values())
    for name, layer in reduced.layers.items():
        assert torch.equal(layer.A[2:], start.layers[name].A[2:])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"initial_rank": 5}, r"allocator\.initial_rank must be at most model\.max_rank 4, got 5"),
        ({"recovery": 12.0}, r"allocator\.recovery must be fewer than the trial's 12 steps, got 12"),
    ],
)
def test_what_cannot_be_is_refused(options: Any, words: str, lab: Any) -> None:
    with pytest.raises(ValueError, match=words):
        lab.Training(Annealed(**options), Budget(mean_rank=1))
