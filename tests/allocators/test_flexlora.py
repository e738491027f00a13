"""FlexLoRA: entropy and moves against the paper's equations and the authors' code."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from rankopt.allocators.flexlora import FlexLoRA, spectral_entropy
from rankopt.core.budget import Budget
from rankopt.lowrank.layers import pattern_of, shapes_of

GATES = {"a": [0.5, 0.4, 0.45], "b": [0.9, 0.1, 0.2], "c": [0.3, 0.3, 0.1], "d": [0.8, 0.05, 0.3]}


def test_entropies_are_those_of_the_authors_code() -> None:
    """The numbers that its `compute_matrix_importance` returned for these gates."""
    found = [spectral_entropy(torch.tensor(gates)) for gates in GATES.values()]
    assert found == pytest.approx([0.985185, 0.228389, 0.785407, 0.359493], abs=1e-5)


@pytest.mark.parametrize("gates", [[], [0.3], [0.0, 0.0]])
def test_entropy_where_the_paper_divides_by_zero(gates: list[float]) -> None:
    assert spectral_entropy(torch.tensor(gates)) == 1.0


def test_moves_are_those_of_the_authors_code(lab: Any) -> None:
    """With b = 2 it took gate .1 of b and .05 of d, and gave a and c one component each with gate 0."""
    training = lab.Training(FlexLoRA(most=2), Budget(mean_rank=3), steps=100)
    names = sorted(training.layers)[:4]
    last = sorted(training.layers)[4]
    with torch.no_grad():
        for name, gates in zip(names, GATES.values(), strict=True):
            training.layers[name].g[:3] = torch.tensor(gates)
        training.layers[last].g[:3] = torch.tensor([0.5, 0.2, 0.1])  # H between those of d and c
    training.state["first"] = 0
    training.state["interval"] = 1
    training.allocator.after_step(training.state, training.layers, 1)
    active = {name: layer.active()[2].tolist() for name, layer in training.layers.items()}
    expected = [[0.5, 0.4, 0.45, 0.0], [0.9, 0.2], [0.3, 0.3, 0.1, 0.0], [0.8, 0.3]]
    for name, gates in zip(names, expected, strict=True):
        assert active[name] == pytest.approx(gates)


def test_the_smallest_magnitude_goes_and_not_the_smallest_signed_gate(lab: Any) -> None:
    """The code would drop -0.9, the strongest component of its layer."""
    training = lab.Training(FlexLoRA(most=1), Budget(mean_rank=3), steps=100)
    first, *others = training.layers.values()
    with torch.no_grad():
        first.g[:3] = torch.tensor([-0.9, 0.1, 0.05])
        for layer in others:
            layer.g[:3] = 0.5
    training.state["first"], training.state["interval"] = 0, 1
    training.allocator.after_step(training.state, training.layers, 1)
    assert first.m.tolist() == [True, True, False, False]


@pytest.mark.parametrize("unit", ["ranks", "parameters"])
def test_a_run_moves_components_at_a_constant_budget(unit: Any, lab: Any) -> None:
    """Losers and gainers at every move are those of a plain transcription, and the budget stays used."""
    budget, steps = Budget(mean_rank=2, unit=unit), 30
    allocator = FlexLoRA(warmup=3, final=5, interval=4, most=2)
    training = lab.Training(allocator, budget, steps=steps)
    shapes, moved = shapes_of(training.layers), 0
    for step in range(1, steps + 1):
        before: dict[str, Any] = {}
        lab.after_optimizer(
            training,
            lambda before=before: before.update(
                {n: (layer.rank, layer.active()[2].detach().clone()) for n, layer in training.layers.items()}
            ),
        )
        training.advance(step)
        now = pattern_of(training.layers)
        assert budget.spent(now, shapes) <= budget.amount(shapes)
        changes = {name: now[name] - before[name][0] for name in now if now[name] != before[name][0]}
        p = (step - 3) / (steps - 5 - 3)
        if not (3 < step < 25 and (step - 3) % 4 == 0 and round(2 * (1 - p**3))):
            assert changes == {}
            continue
        moved += 1
        entropy = {}
        for name, (rank, g) in before.items():
            share = g**2 / (g**2).sum()
            entropy[name] = float(-(share * share.log()).sum()) / math.log(rank) if rank > 1 else 1.0
        losers = sorted((name for name in now if before[name][0] > 1), key=lambda name: (entropy[name], name))
        losers = losers[: round(2 * (1 - p**3))]
        assert {name for name, change in changes.items() if change < 0} <= set(losers)
        if unit == "ranks":
            gainers = [
                name
                for name in sorted(now, key=lambda name: (-entropy[name], name))
                if name not in losers and before[name][0] < 4
            ]
            assert {n: c for n, c in changes.items() if c > 0} == dict.fromkeys(gainers[: len(losers)], 1)
    assert moved >= 4


def test_a_move_leaves_the_function_as_without_what_was_dropped(lab: Any) -> None:
    """New components have gate zero: their random factors do not act before they are trained."""
    training = lab.Training(FlexLoRA(warmup=2, final=2, interval=3), Budget(mean_rank=2), steps=12).advance(4)
    before: dict[str, torch.Tensor] = {}
    lab.after_optimizer(training, lambda: before.update({n: it.update() for n, it in training.layers.items()}))
    ranks = pattern_of(training.layers)
    training.advance(5)
    gained = [name for name, rank in pattern_of(training.layers).items() if rank > ranks[name]]
    assert gained
    for name in gained:
        torch.testing.assert_close(training.layers[name].update(), before[name])


def test_new_components_train(lab: Any) -> None:
    training = lab.Training(FlexLoRA(warmup=2, final=2, interval=3), Budget(mean_rank=2), steps=12).advance(5)
    new = [(name, i) for name, it in training.layers.items() for i in range(4) if it.m[i] and it.g[i] == 0]
    assert new
    training.advance(7)
    assert all(not training.layers[name].m[i] or training.layers[name].g[i] != 0 for name, i in new)
