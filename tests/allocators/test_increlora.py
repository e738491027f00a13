"""IncreLoRA: score, growth, reserves and the warm-up of what is new, against plain transcriptions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from rankopt.allocators.increlora import RESERVE, IncreLoRA, sensitivity
from rankopt.core.budget import Budget
from rankopt.lowrank.layers import pattern_of, shapes_of
from rankopt.lowrank.linear import LowRankLinear
from rankopt.lowrank.scale import Scale
from rankopt.lowrank.statistics import WeightGradient


def test_the_score_is_that_of_the_authors_code() -> None:
    """Its backward hook gave 40.804 = sum / sqrt(6) for these tensors; the paper's mean is that over sqrt(6)."""
    layer = LowRankLinear(nn.Linear(3, 2), 2, Scale("unit", 2.0))
    layer.open(2)
    with torch.no_grad():
        layer.base.weight.zero_()
        layer.base.bias.zero_()
        layer.A.copy_(torch.tensor([[1.0, 2.0, 3.0], [0.5, -1.0, 0.0]]))
        layer.B.copy_(torch.tensor([[1.0, -1.0], [2.0, 0.5]]))
        layer.g.copy_(torch.tensor([0.3, -0.2]))
    WeightGradient().watch(layer)
    (layer(torch.tensor([[1.0, 0.0, 2.0], [-1.0, 1.0, 0.5]])).square().sum() / 2).backward()
    assert float(sensitivity(layer, layer.statistics.take())) == pytest.approx(16.658165, rel=1e-4)


def test_it_starts_with_one_component_and_reserves_that_hardly_act(lab: Any) -> None:
    training = lab.Training(IncreLoRA(grow=2), Budget(mean_rank=2))
    assert set(training.allocator.allocated(training.state, training.layers).values()) == {1}
    assert set(pattern_of(training.layers).values()) == {3}
    for layer in training.layers.values():
        assert layer.g[:3].tolist() == pytest.approx([0.0, RESERVE, RESERVE])
        assert layer.s == 2.0, "alpha 4 over the budget's uniform rank"
    torch.testing.assert_close(lab.logits(training.model), lab.logits(lab.base_model()), atol=1e-5, rtol=0)


@pytest.mark.parametrize("unit", ["ranks", "parameters"])
def test_a_run_is_the_plain_transcription(unit: Any, lab: Any) -> None:
    """Scores at every step and the layers that grow; at the end the budget is used, and reserves are gone."""
    steps, budget = 24, Budget(mean_rank=3, unit=unit)
    allocator = IncreLoRA(warmup=2, final=8, interval=3, grow=1)
    training = lab.Training(allocator, budget, steps=steps)
    layers, shapes = training.layers, shapes_of(training.layers)
    mean, unsure = dict.fromkeys(layers, 0.0), dict.fromkeys(layers, 0.0)
    grown = 0
    for step in range(1, steps + 1):
        before = dict(allocator.allocated(training.state, layers))
        gradients: dict[str, torch.Tensor] = {}

        def note(gradients: dict[str, torch.Tensor] = gradients) -> None:
            gradients.update({name: layer.statistics.total for name, layer in layers.items()})

        growing = training.state["growing"]
        lab.after_optimizer(training, note)
        updates = {}
        if growing:  # the weights after the step, with the reserves' gates put back
            original = training.allocator._score

            def score(state: Any, layers: Any, updates: Any = updates, original: Any = original) -> None:
                updates.update({name: layer.update() for name, layer in layers.items()})
                original(state, layers)

            object.__setattr__(training.allocator, "_score", score)
        training.advance(step)
        if growing:
            object.__delattr__(training.allocator, "_score")
        after = dict(allocator.allocated(training.state, layers))
        if not growing:
            assert after == before
            assert set(gradients.values()) == {None}, "nothing is collected any more"
            continue
        for name in layers:
            value = float((updates[name] * gradients[name]).abs().mean())
            mean[name] = 0.85 * mean[name] + 0.15 * value
            unsure[name] = 0.85 * unsure[name] + 0.15 * abs(value - mean[name])
            assert training.state["mean"][name] == pytest.approx(mean[name], rel=1e-4)
        if not (step > 2 and ((step - 2) % 3 == 0 or step == 16)):
            assert after == before
            continue
        best = sorted(layers, key=lambda name: (-mean[name] * unsure[name], name))
        if step < 16 and unit == "ranks":
            chosen = [name for name in best if before[name] < 4][: training.state["layers"]]
            assert after == {name: before[name] + (name in chosen) for name in layers}
            grown += 1
    assert training.state["layers"] == 2
    assert grown >= 3 or unit == "parameters"
    left = budget.amount(shapes) - budget.spent(pattern_of(layers), shapes)
    assert pattern_of(layers) == after
    assert left >= 0
    assert all(budget.cost(shapes[name]) > left for name, rank in after.items() if rank < 4)


def test_reserves_train_in_advance_at_a_fixed_gate(lab: Any) -> None:
    training = lab.Training(IncreLoRA(warmup=6, grow=1), Budget(mean_rank=2), steps=24)
    start = training.weights()
    training.advance(5)
    for name, layer in training.layers.items():
        assert layer.rank == 2
        assert float(layer.g[1]) == pytest.approx(RESERVE)
        assert not torch.equal(layer.A[1], start[f"{name}.A"][1])
        assert layer.g[0] != 0


def test_the_orthogonality_penalty_makes_reserves_nearly_orthonormal(lab: Any) -> None:
    """Before they are used, as the paper intends."""
    allocator = IncreLoRA(warmup=0.9, final=0.05, grow=2, orthogonality=1.0)
    training = lab.Training(allocator, Budget(mean_rank=3), steps=200, lr=0.02).advance(150)
    for layer in training.layers.values():
        A = layer.active()[0].detach()
        assert (A @ A.T - torch.eye(len(A))).abs().max() < 0.35


def test_what_is_new_starts_at_a_share_of_the_learning_rate(lab: Any) -> None:
    """Factors of a reserve that opened at step t move by (step - t) / restart of the optimiser's step."""
    allocator = IncreLoRA(warmup=2, final=4, interval=3, grow=1, restart_warmup=4)
    training = lab.Training(allocator, Budget(mean_rank=3), steps=24).advance(5)
    new = {
        name: layer.rank - 1
        for name, layer in training.layers.items()
        if training.state["opened"][name][layer.rank - 1] == 5
    }
    assert new
    for share in (0.25, 0.5, 0.75):
        before, full = training.weights(), {}

        def note(full: Any = full) -> None:
            full.update({name: layer.A.detach().clone() for name, layer in training.layers.items()})

        lab.after_optimizer(training, note)
        training.advance(training.step + 1)
        for name, index in new.items():
            old = before[f"{name}.A"][index]
            expected = old + share * (full[name][index] - old)
            torch.testing.assert_close(training.layers[name].A[index].detach(), expected)
            assert torch.equal(training.layers[name].A[0], full[name][0])


def test_a_zero_budget_opens_no_reserves(lab: Any) -> None:
    training = lab.Training(IncreLoRA(), Budget(ranks=0)).advance()
    assert pattern_of(training.layers).total == 0
    assert {pattern.total for pattern in training.trace} == {0}


def test_the_phases_must_leave_a_step(lab: Any) -> None:
    with pytest.raises(ValueError, match=r"allocator\.warmup \+ allocator\.final must be fewer .* got 8 \+ 6"):
        lab.Training(IncreLoRA(warmup=8, final=6), Budget(mean_rank=2))
