"""Uniform: plain LoRA, checked against the equations of its start and against its own budget."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from rankopt.allocators.random import Random
from rankopt.allocators.shared.start import init_lora
from rankopt.allocators.uniform import Uniform
from rankopt.core.budget import Budget
from rankopt.lowrank.scale import Scale


@pytest.mark.parametrize(
    ("budget", "ranks"), [(Budget(mean_rank=2), {2}), (Budget(ranks=7), {1, 2}), (Budget(ranks=0), {0})]
)
def test_ranks(budget: Budget, ranks: set[int], lab: Any) -> None:
    training = lab.Training(Uniform(), budget)
    assert set(training.finish()[0].values()) == ranks
    assert training.finish()[0].total == budget.amount({name: layer.shape for name, layer in training.layers.items()})


def test_a_uniform_rank_costs_the_same_in_both_units(lab: Any) -> None:
    one, other = (lab.Training(Uniform(), Budget(mean_rank=3, unit=unit)) for unit in ("ranks", "parameters"))
    assert one.finish() == other.finish()


def test_lora_starts(lab: Any) -> None:
    """A uniform in +-1/sqrt(in), B zero, gate one and not trained, s = alpha / r: LoRA as published."""
    training = lab.Training(Uniform(), Budget(mean_rank=2))
    for layer in training.layers.values():
        bound = 1 / math.sqrt(layer.shape.fan_in)
        assert 0.8 * bound < layer.A.abs().max().item() <= bound
        assert abs(layer.A.mean().item()) < 0.3 * bound
        assert layer.B.abs().max() == 0
        assert (layer.g == 1).all()
        assert not layer.g.requires_grad
        assert layer.s == 4.0 / 2


def test_components_start_alike_under_every_budget_and_allocator(lab: Any) -> None:
    """Common random numbers: component i of a layer begins the same, whoever keeps it and how many others there are."""
    one = lab.Training(Uniform(), Budget(mean_rank=1))
    other = lab.Training(Random(), Budget(mean_rank=3))
    for name in one.layers:
        assert torch.equal(one.layers[name].A, other.layers[name].A)
    assert len({float(layer.A[0, 0].detach()) for layer in one.layers.values()}) == len(one.layers)


def test_components_do_not_depend_on_max_rank(lab: Any) -> None:
    """A larger physical rank adds components behind, it changes none before."""
    small, large = lab.inject(Scale("init", 1.0), 4)[1], lab.inject(Scale("init", 1.0), 16)[1]
    for name in small:
        init_lora(small[name], name, 0)
        init_lora(large[name], name, 0)
        assert torch.equal(small[name].A, large[name].A[:4])
