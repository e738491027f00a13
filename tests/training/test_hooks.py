"""An allocator's hooks without any Trainer."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from rankopt.allocators import ALLOCATORS
from rankopt.core.budget import Budget
from rankopt.lowrank.inject import inject
from rankopt.lowrank.scale import Scale
from rankopt.training.hooks import AllocatorHooks


def hooks(name: str, steps: int = 4, **options: Any) -> AllocatorHooks:
    """Hooks of a random two-layer net with 4 components per layer, at mean rank 1."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 6), nn.Linear(6, 3)).requires_grad_(False)
    layers = inject(net, ["0", "1"], 4, Scale("unit", 1.0))
    allocator, budget = ALLOCATORS[name](**options), Budget(ranks=2)
    return AllocatorHooks(allocator, allocator.start(layers, budget, steps, 0), layers, budget)


def trained(found: AllocatorHooks) -> list[nn.Parameter]:
    return [p for layer in found.layers.values() for p in layer.parameters() if p.requires_grad]


@pytest.mark.parametrize("scale", [1.0, 8.0])
def test_the_penaltys_gradient(scale: float) -> None:
    """It is added to the gradients that are there already, and is that of the penalty times the scale."""
    found = hooks("adalora", warmup=0.0, final=0.25)
    penalty = found.penalty()
    assert penalty is not None
    expected = torch.autograd.grad(penalty * scale, trained(found), allow_unused=True)
    for p in trained(found):
        p.grad = torch.ones_like(p)
    found.add_penalty_gradient(scale)
    assert found.last_penalty == pytest.approx(penalty.item())
    for p, gradient in zip(trained(found), expected, strict=True):
        torch.testing.assert_close(p.grad, torch.ones_like(p) if gradient is None else gradient + 1)


def test_no_penalty() -> None:
    """An allocator without a penalty leaves the gradients alone."""
    found = hooks("uniform")
    found.add_penalty_gradient()
    assert found.last_penalty == 0.0
    assert all(p.grad is None for p in trained(found))


def test_ranks_are_recorded_when_they_change() -> None:
    """The record starts with step 0, has no entry for a step that changes nothing, and ends within the budget."""
    found = hooks("adalora", warmup=0.0, final=0.25, initial=2.0)
    optimizer = torch.optim.AdamW(trained(found), lr=0.01)
    found.record_ranks(0)
    for step in range(1, 5):
        found.before_step(step)
        found.add_penalty_gradient()
        optimizer.step()
        found.after_step(step, 4, optimizer)
        optimizer.zero_grad()
        found.record_ranks(step)
    amounts = [event["amount"] for event in found.ranks]
    assert found.ranks[0]["step"] == 0
    assert amounts[0] == 4
    assert amounts[-1] == 2 == found.allocated.total
    assert len(set(map(str, (event["ranks"] for event in found.ranks)))) == len(found.ranks)
    assert found.peak == {"0": 2, "1": 2}


def test_weights_that_are_not_finite() -> None:
    """The message names the step."""
    found = hooks("uniform")
    optimizer = torch.optim.AdamW(trained(found), lr=0.01)
    with torch.no_grad():
        found.layers["0"].B[0, 0] = float("inf")
    with pytest.raises(FloatingPointError, match="no longer finite at step 2 of 4"):
        found.after_step(2, 4, optimizer)
