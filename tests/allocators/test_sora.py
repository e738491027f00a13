"""SoRA: the proximal step, the threshold that follows the budget, and what stays at zero."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from rankopt.allocators.sora import SoRA, soft_threshold
from rankopt.core.budget import Budget, Schedule
from rankopt.lowrank.layers import shapes_of


def test_soft_threshold() -> None:
    """1.5 xi becomes 0.5 xi; the released code makes it 0, see the docstring."""
    values = torch.tensor([1.5, 1.0, 0.3, 0.0, -0.3, -2.5])
    assert soft_threshold(values, 1.0).tolist() == [0.5, 0.0, 0.0, 0.0, 0.0, -1.5]
    # the defining property: it minimises (z - v)^2 / 2 + threshold |z|
    grid = torch.linspace(-3, 3, 6001)
    for value in values:
        best = grid[((grid - value).square() / 2 + grid.abs()).argmin()]
        assert float(soft_threshold(value, 1.0)) == pytest.approx(float(best), abs=1e-3)


@pytest.mark.parametrize("unit", ["ranks", "parameters"])
def test_gates_follow_the_budget(unit: Any, lab: Any) -> None:
    """At every step of the falling phase the survivors fit b(t), and all of them moved towards zero by one threshold
    per unit of cost."""
    budget = Budget(mean_rank=2, unit=unit)
    allocator = SoRA(warmup=3, final=3)
    training = lab.Training(allocator, budget, steps=20)
    shapes = shapes_of(training.layers)
    schedule = Schedule(**training.state["schedule"])
    for step in range(1, 21):
        gates: dict[str, torch.Tensor] = {}
        lab.after_optimizer(
            training, lambda gates=gates: gates.update({n: it.g.detach().clone() for n, it in training.layers.items()})
        )
        training.advance(step)
        if not schedule.falling(step):
            continue
        assert budget.spent(allocator.allocated(training.state, training.layers), shapes) <= schedule.at(step)
        moved = [
            float((gates[name].abs() - layer.g.detach().abs())[i]) / budget.cost(shapes[name])
            for name, layer in training.layers.items()
            for i in range(layer.initial)
            if layer.g[i] != 0
        ]
        assert max(moved) - min(moved) < 1e-6, "one threshold, up to rounding"
        assert min(moved) >= 0


def test_zero_is_zero_in_the_final_phase(lab: Any) -> None:
    """Momentum does not bring a component back, and what the pattern drops was zero already."""
    training = lab.Training(SoRA(warmup=1, final=8), Budget(mean_rank=2), steps=16).advance(8)
    zero = {name: layer.g == 0 for name, layer in training.layers.items()}
    training.advance(16)
    before = lab.logits(training.model)
    for name, layer in training.layers.items():
        assert bool((layer.g[zero[name]] == 0).all())
    training.finish()
    torch.testing.assert_close(lab.logits(training.model), before)


def test_the_penalty_is_the_mean_gate(lab: Any) -> None:
    training = lab.Training(SoRA(l1=0.5), Budget(mean_rank=2))
    gates = torch.cat([layer.g[: layer.initial] for layer in training.layers.values()])
    torch.testing.assert_close(
        training.allocator.penalty(training.state, training.layers), 0.5 * gates.abs().sum() / len(gates)
    )
    assert SoRA(l1=0.0).penalty(training.state, training.layers) is None


def test_gates_start_as_standard_normal_numbers(lab: Any) -> None:
    training = lab.Training(SoRA(), Budget(mean_rank=2))
    gates = torch.cat([layer.g.detach() for layer in training.layers.values()])
    assert abs(float(gates.mean())) < 1.0
    assert 0.5 < float(gates.std()) < 1.6
    assert all(layer.g.requires_grad for layer in training.layers.values())


def test_sparsity_rises_with_the_threshold(lab: Any) -> None:
    """With room for all components, the fixed threshold xi alone decides how many gates are zero, as published."""
    open_gates = []
    for xi in (0.0, 0.03, 0.06, 0.12):
        training = lab.Training(SoRA(xi=xi, warmup=0.0, final=0.0), Budget(mean_rank=4), steps=20).advance()
        open_gates.append(sum(int(layer.g.count_nonzero()) for layer in training.layers.values()))
    assert open_gates == sorted(open_gates, reverse=True)
    assert open_gates[0] == 20
    assert len(set(open_gates)) == 4
