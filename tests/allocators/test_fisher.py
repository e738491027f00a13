"""Fisher allocation: masses against autograd, ranks against proportional shares."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional

from rankopt.allocators.fisher import Fisher
from rankopt.core.budget import Budget
from rankopt.lowrank.layers import pattern_of


def test_the_mass_is_the_mean_squared_gradient_of_the_frozen_weight(lab: Any) -> None:
    """Against autograd through the base model, batch by batch."""
    training = lab.Training(Fisher(batches=2), Budget(mean_rank=2)).prepare()
    model = lab.base_model().requires_grad_(True)
    expected = dict.fromkeys(training.layers, 0.0)
    for batch, _ in zip(lab.batches(), range(2), strict=False):
        model.zero_grad()
        functional.cross_entropy(model(input_ids=batch["input_ids"]).logits, batch["labels"]).backward()
        for name in expected:
            expected[name] += float(model.get_submodule(name).weight.grad.square().sum()) / 2
    assert training.state["measured"]["Fisher"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("least", [0, 1])
def test_ranks_are_proportional_to_the_mass(least: int, lab: Any) -> None:
    """Each within one of its exact share, where neither bound cuts it off."""
    training = lab.Training(Fisher(batches=2, least=least), Budget(mean_rank=2)).prepare()
    mass, ranks = training.state["measured"]["Fisher"], pattern_of(training.layers)
    assert ranks.total == 10
    assert all(rank >= least for rank in ranks.values())
    free = {name: rank for name, rank in ranks.items() if least < rank < 4}
    order = sorted(ranks, key=lambda name: mass[name])
    assert [ranks[name] for name in order] == sorted(ranks.values())
    rate = sum(free.values()) / sum(mass[name] for name in free) if free else 0.0
    assert all(abs(rank - rate * mass[name]) <= 1 for name, rank in free.items())


def test_a_rank_is_each_layers_own_for_the_scale(lab: Any) -> None:
    """As in LoRA with a rank pattern: s = alpha / r_k."""
    training = lab.Training(Fisher(batches=1), Budget(mean_rank=2)).prepare()
    assert all(layer.s == 4.0 / layer.rank for layer in training.layers.values() if layer.rank)
    assert all(torch.equal(layer.B, torch.zeros_like(layer.B)) for layer in training.layers.values())
