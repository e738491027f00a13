"""Triplets: stacked averages against one tensor at a time, and the penalty against its definition."""

from __future__ import annotations

from typing import Any

import torch

from rankopt.allocators.elalora import ElaLoRA
from rankopt.allocators.shared.triplets import (
    forget_sensitivity,
    orthogonality_penalty,
    sensitivity,
    update_sensitivity,
    zero_sensitivity,
)
from rankopt.core.budget import Budget


def test_averages_are_those_of_each_tensor_alone(lab: Any) -> None:
    """After one step from zero: Ibar = .15 I, Ubar = .15 |I - Ibar|; components beyond the rank are left out."""
    training = lab.Training(ElaLoRA(), Budget(mean_rank=2))
    training.loss(1).backward()
    state = zero_sensitivity(training.layers, 3)
    update_sensitivity(state, training.layers, 0.85, 0.85)
    for name, scores in sensitivity(state, training.layers).items():
        layer = training.layers[name]
        parts = {}
        for key in ("A", "B", "g"):
            weight = getattr(layer, key)
            product = (weight * weight.grad).abs().detach()
            parts[key] = 0.15 * product * 0.15 * 0.85 * product
        expected = parts["g"] + parts["A"].mean(1) + parts["B"].mean(0)
        torch.testing.assert_close(torch.tensor(scores), expected[:3])


def test_one_component_is_forgotten(lab: Any) -> None:
    training = lab.Training(ElaLoRA(), Budget(mean_rank=2)).advance(2)
    state, name = training.state, list(training.layers)[1]
    before = sensitivity(state, training.layers)
    forget_sensitivity(state, training.layers, name, 1)
    after = sensitivity(state, training.layers)
    assert before[name][1] > 0
    before[name][1] = 0.0
    assert after == before


def test_the_penalty_is_the_mean_norm_over_active_factors(lab: Any) -> None:
    """With masked components in between, and a layer without any."""
    training = lab.Training(ElaLoRA(), Budget(mean_rank=3))
    first, second, *others = training.layers.values()
    first.mask(torch.tensor([True, False, True, False]))
    second.mask(torch.zeros(4, dtype=torch.bool))
    norms = []
    for layer in (first, *others):
        A, B = layer.A[layer.m], layer.B[:, layer.m]
        norms += [torch.linalg.norm(gram - torch.eye(len(gram))) for gram in (A @ A.T, B.T @ B)]
    torch.testing.assert_close(orthogonality_penalty(training.layers), torch.stack(norms).mean())
    for layer in training.layers.values():
        layer.mask(torch.zeros(4, dtype=torch.bool))
    assert orthogonality_penalty(training.layers) is None
