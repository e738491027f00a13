"""SaLoRA: the Lagrangian's step against autograd, the constraint, and what is fixed at the end."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from rankopt.allocators.salora import SaLoRA
from rankopt.allocators.shared.adam import adam
from rankopt.allocators.shared.hard_concrete import open_probability, sample
from rankopt.core.budget import Budget
from rankopt.lowrank.layers import shapes_of


@pytest.mark.parametrize("unit", ["ranks", "parameters"])
def test_a_step_is_the_gradient_of_the_lagrangian(unit: Any, lab: Any) -> None:
    """log_alpha moves as if autograd had gone through loss, gates and constraint."""
    allocator, budget = SaLoRA(), Budget(mean_rank=1, unit=unit)
    training = lab.Training(allocator, budget, steps=20).advance(3)
    state, layers = training.state, training.layers
    training.optimizer.zero_grad()
    allocator.before_step(state, layers, 4)
    mu, costs = state["mu"], {name: budget.cost(shape) for name, shape in shapes_of(layers).items()}
    assert mu > 0
    location = {name: values.clone().requires_grad_(True) for name, values in state["log_alpha"].items()}
    total = sum(costs[name] * len(values) for name, values in location.items())
    training.loss(4).backward()
    lagrangian = sum(
        (layers[name].g.grad[: len(values)] * sample(values, state["noise"][name])).sum()
        + mu * costs[name] * open_probability(values).sum() / total
        for name, values in location.items()
    )
    lagrangian.backward()
    expected = {name: values.detach().clone() for name, values in location.items()}
    for name, values in expected.items():
        adam(values, location[name].grad, state["mean"][name].clone(), state["square"][name].clone(), 4, 0.1)
    violated = sum(costs[n] * float(open_probability(v).sum()) for n, v in state["log_alpha"].items()) / total
    allocator.after_step(state, layers, 4)
    for name, values in expected.items():
        torch.testing.assert_close(state["log_alpha"][name], values)
    assert state["mu"] == pytest.approx(mu + violated - budget.amount(shapes_of(layers)) / total)


def test_the_expected_size_reaches_the_budget(lab: Any) -> None:
    """The multiplier closes gates until the constraint holds, and lets go then."""
    training = lab.Training(SaLoRA(final=20), Budget(mean_rank=1), steps=100).advance(80)
    expected = sum(float(open_probability(values).sum()) for values in training.state["log_alpha"].values())
    assert expected < 1.3 * 5
    assert expected > 0.3 * 5, "it does not close everything"


def test_the_pattern_is_fixed_in_the_final_phase(lab: Any) -> None:
    training = lab.Training(SaLoRA(final=6), Budget(mean_rank=2), steps=16).advance(10)
    masks = {name: layer.m.clone() for name, layer in training.layers.items()}
    assert sum(int(mask.sum()) for mask in masks.values()) == 10
    gates = {name: values.clone() for name, values in training.state["log_alpha"].items()}
    training.advance(16)
    for name, layer in training.layers.items():
        assert torch.equal(layer.m, masks[name])
        assert torch.equal(training.state["log_alpha"][name], gates[name])
