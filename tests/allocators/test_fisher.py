"""Fisher allocation: masses against autograd, ranks against proportional shares."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional

from rankopt.allocators.fisher import Fisher
from rankopt.core.budget import Budget
from rankopt.lowrank.layers import pattern_of


def test_the_information_is_the_mean_squared_gradient_of_b(lab: Any) -> None:
    """Against autograd through LoRA at its start, batch by batch."""
    training = lab.Training(Fisher(batches=2), Budget(mean_rank=2)).prepare()
    other = lab.Training(Fisher(), Budget(mean_rank=2))
    expected = dict.fromkeys(other.layers, 0.0)
    for batch, _ in zip(lab.batches(), range(2), strict=False):
        other.model.zero_grad()
        functional.cross_entropy(other.model(input_ids=batch["input_ids"]).logits, batch["labels"]).backward()
        for name, layer in other.layers.items():
            assert layer.rank == 2
            assert not layer.A.grad[:2].any()
            expected[name] += float(layer.B.grad[:, :2].square().mean()) / 2
    assert training.state["measured"]["Fisher"] == pytest.approx(expected, rel=1e-4)


def test_no_layer_gets_more_than_twice_the_uniform_rank(lab: Any) -> None:
    for most, highest in [(1.0, 2), (1.5, 3)]:
        training = lab.Training(Fisher(batches=1, most=most), Budget(mean_rank=2)).prepare()
        ranks = pattern_of(training.layers)
        assert (max(ranks.values()), ranks.total) == (highest, 10)


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
