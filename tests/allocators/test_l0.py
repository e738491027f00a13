"""L0: its step against autograd, the effect of the weight, and the cut at the budget."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from rankopt.allocators.l0 import L0
from rankopt.allocators.shared.adam import adam
from rankopt.allocators.shared.hard_concrete import open_probability, sample
from rankopt.core.budget import Budget
from rankopt.lowrank.layers import pattern_of, shapes_of


@pytest.mark.parametrize("unit", ["ranks", "parameters"])
def test_a_step_is_the_gradient_of_the_penalised_loss(unit: Any, lab: Any) -> None:
    """log_alpha moves as if autograd had gone through loss, gates and penalty."""
    allocator, budget = L0(weight=0.7), Budget(mean_rank=1, unit=unit)
    training = lab.Training(allocator, budget, steps=20).advance(3)
    state, layers = training.state, training.layers
    training.optimizer.zero_grad()
    allocator.before_step(state, layers, 4)
    costs = {name: budget.cost(shape) for name, shape in shapes_of(layers).items()}
    location = {name: values.clone().requires_grad_(True) for name, values in state["log_alpha"].items()}
    total = sum(costs[name] * len(values) for name, values in location.items())
    training.loss(4).backward()
    objective = sum(
        (layers[name].g.grad[: len(values)] * sample(values, state["noise"][name])).sum()
        + 0.7 * costs[name] * open_probability(values).sum() / total
        for name, values in location.items()
    )
    objective.backward()
    expected = {name: values.detach().clone() for name, values in location.items()}
    for name, values in expected.items():
        adam(values, location[name].grad, state["mean"][name].clone(), state["square"][name].clone(), 4, 0.1)
    allocator.after_step(state, layers, 4)
    for name, values in expected.items():
        torch.testing.assert_close(state["log_alpha"][name], values)


def test_a_larger_weight_closes_more_gates(lab: Any) -> None:
    """The expected number of open gates falls with it."""
    counts = []
    for weight in (0.0, 1.0, 100.0):
        training = lab.Training(L0(weight=weight), Budget(mean_rank=2), steps=60).advance(40)
        counts.append(sum(float(open_probability(values).sum()) for values in training.state["log_alpha"].values()))
    assert counts[0] > counts[1] > counts[2]


def test_the_budget_cuts_what_is_left(lab: Any) -> None:
    """Even where the penalty closed nothing; then the pattern is fixed."""
    training = lab.Training(L0(weight=0.0, final=6.0), Budget(mean_rank=2), steps=16).advance(9)
    assert pattern_of(training.layers).total == 15
    training.advance(10)
    cut = pattern_of(training.layers)
    assert cut.total == 10
    training.advance()
    assert training.finish() == (cut,)
