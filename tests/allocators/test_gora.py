"""GoRA: importance and ranks against the paper's formulas, and the start, whose sign the loss decides."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.nn import functional

from rankopt.allocators.gora import GoRA, coordinates
from rankopt.core.budget import Budget
from rankopt.lowrank.layers import pattern_of, shapes_of


def loss(training: Any, lab: Any, batches: int) -> float:
    with torch.no_grad():
        losses = [
            float(functional.cross_entropy(training.model(input_ids=batch["input_ids"]).logits, batch["labels"]))
            for batch, _ in zip(lab.batches(), range(batches), strict=False)
        ]
    return sum(losses) / batches


def gradients(training: Any, lab: Any, batches: int) -> dict[str, torch.Tensor]:
    """Mean gradients of the frozen weights, by autograd through the base model."""
    model = lab.base_model().requires_grad_(True)
    for batch, _ in zip(lab.batches(), range(batches), strict=False):
        (functional.cross_entropy(model(input_ids=batch["input_ids"]).logits, batch["labels"]) / batches).backward()
    return {name: model.get_submodule(name).weight.grad for name in training.layers}


def test_coordinates_are_the_least_squares_solution() -> None:
    """B A is the projection of G on the rows of A."""
    generator = torch.Generator().manual_seed(0)
    G, A = torch.randn(5, 7, generator=generator), torch.randn(3, 7, generator=generator)
    expected = torch.linalg.lstsq(A.T, G.T).solution.T
    torch.testing.assert_close(coordinates(G, A), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("scale", ["rs", "init", "unit"])
def test_the_start_is_a_projected_step_against_the_gradient(scale: Any, lab: Any) -> None:
    """s B A = - lr sqrt(in / r) G P, whatever the scale policy."""
    training = lab.Training(GoRA(batches=2, lr=0.01), Budget(mean_rank=2), scale=scale).prepare()
    G = gradients(training, lab, 2)
    for name, layer in training.layers.items():
        A = layer.active()[0].detach()
        P = torch.linalg.pinv(A) @ A
        expected = -0.01 * math.sqrt(layer.shape.fan_in / layer.rank) * G[name] @ P
        torch.testing.assert_close(layer.update(), expected, atol=1e-5, rtol=1e-3)


def test_the_start_lowers_the_loss_and_the_codes_sign_raises_it(lab: Any) -> None:
    """On the batches that were looked at. The released code sets B = + G A^T ...: the loss rises."""
    start = lab.Training(GoRA(batches=2, lr=0.01), Budget(mean_rank=2))
    before = loss(start, lab, 2)
    start.prepare()
    after = loss(start, lab, 2)
    with torch.no_grad():
        for layer in start.layers.values():
            layer.B.neg_()
    assert after < before < loss(start, lab, 2)


def test_parameters_are_proportional_to_importance(lab: Any) -> None:
    """I = mean |W * G|; r (in + out) within one component of the layer's share, where no bound cuts it off."""
    budget = Budget(mean_rank=2, unit="parameters")
    training = lab.Training(GoRA(batches=2, least=0.0), budget).prepare()
    G, shapes, ranks = gradients(training, lab, 2), shapes_of(training.layers), pattern_of(training.layers)
    importance = {n: float((layer.base.weight * G[n]).abs().mean()) for n, layer in training.layers.items()}
    assert training.state["measured"]["|W dL/dW|"] == pytest.approx(importance, rel=1e-4)
    free = [name for name, rank in ranks.items() if 0 < rank < 4]
    paid = sum(ranks[name] * shapes[name].cost for name in free)
    total = sum(importance[name] for name in free)
    for name in free:
        share = paid * importance[name] / total
        assert abs(ranks[name] * shapes[name].cost - share) <= shapes[name].cost


def test_every_layer_keeps_half_of_the_uniform_rank(lab: Any) -> None:
    training = lab.Training(GoRA(batches=1), Budget(mean_rank=3)).prepare()
    assert min(pattern_of(training.layers).values()) >= 1
    assert pattern_of(training.layers).total == 15
