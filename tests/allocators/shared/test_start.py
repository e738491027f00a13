"""Layers start as the papers start them, and the same under every allocator, budget and order of layers."""

from __future__ import annotations

import math

import torch
from torch import nn

from rankopt.allocators.shared.start import init_lora, init_triplets, smallest_max_rank, start_pattern
from rankopt.core.pattern import RankPattern
from rankopt.lowrank.linear import LowRankLinear
from rankopt.lowrank.scale import Scale


def layer(fan_in: int = 64, fan_out: int = 32, max_rank: int = 8) -> LowRankLinear:
    return LowRankLinear(nn.Linear(fan_in, fan_out), max_rank, Scale("unit", 2.0))


def test_lora() -> None:
    """A uniform within 1/sqrt(in) and spread over that range, B zero, the gate one and not trained."""
    one = layer()
    init_lora(one, "a", 0)
    bound = 1 / math.sqrt(64)
    assert 0.95 * bound < float(one.A.detach().abs().max()) <= bound
    assert not one.B.any()
    assert (one.g == 1).all()
    assert not one.g.requires_grad


def test_triplets() -> None:
    """Both factors normal with deviation 0.02, the gate zero and trained."""
    one = layer(max_rank=64)
    init_triplets(one, "a", 0)
    for factor in (one.A, one.B):
        assert abs(float(factor.detach().std()) - 0.02) < 0.002
    assert not one.g.any()
    assert one.g.requires_grad


def test_a_pattern_starts_its_layers_alone() -> None:
    """The start of a layer depends on its name and the seed, not on ranks or on other layers."""
    both, single = {"a": layer(), "b": layer(max_rank=4)}, {"b": layer(max_rank=4)}
    assert start_pattern(both, RankPattern({"a": 3, "b": 0}), 7) == {}
    start_pattern(single, RankPattern({"b": 2}), 7)
    assert [one.rank for one in both.values()] == [3, 0]
    assert torch.equal(both["b"].A, single["b"].A)
    assert not torch.equal(both["a"].A[:4], both["b"].A)
    assert smallest_max_rank(both) == 4
