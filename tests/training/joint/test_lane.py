"""A joint lane answers a model's forward pass with logits whose gradient reaches the trial's parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from rankopt.training.joint.joint_training import JointTraining
from rankopt.training.lane import Lane
from rankopt.training.prepare import prepare


def gradients(spec: Any, lane: Lane) -> dict[str, torch.Tensor]:
    """The gradients of one step's loss, dropout included."""
    adapted = prepare(spec, lane).adapted
    torch.manual_seed(3)
    ids = torch.tensor([[2, 5, 6, 3], [2, 7, 3, 0]])
    net: Any = adapted.net.train()
    net(input_ids=ids, attention_mask=(ids != 0).long()).logits.square().sum().backward()
    lane.backward()
    return {name: p.grad for name, p in net.named_parameters() if p.grad is not None}


def test_gradients_are_those_of_the_trial_alone(dropping_spec: Callable[..., Any]) -> None:
    """One trial in a joint lane has the gradients, bit for bit, of a trial without one."""
    spec = dropping_spec()
    expected = gradients(spec, Lane())
    with JointTraining().lane() as lane:
        found = gradients(spec, lane)
        assert lane.clock() > 0
    assert found.keys() == expected.keys()
    assert any(value.any() for value in expected.values())
    assert all(torch.equal(found[name], expected[name]) for name in expected)
