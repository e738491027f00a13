"""Statistics of passes: against autograd and plain sums, over micro-batches, and off where they must be."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from rankopt.lowrank.linear import LowRankLinear
from rankopt.lowrank.scale import Scale
from rankopt.lowrank.statistics import (
    InputSquares,
    ProjectedMoment,
    Statistics,
    WeightGradient,
    collects_statistics,
)


def watched(kind: type[Statistics], dropout: float = 0.0) -> LowRankLinear:
    torch.manual_seed(0)
    layer = LowRankLinear(nn.Linear(4, 3), 2, Scale("unit", 2.0), dropout)
    layer.open(2)
    nn.init.normal_(layer.A)
    nn.init.normal_(layer.B)
    kind().watch(layer)
    return layer


@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("rank", [0, 2])
def test_the_gradient_of_the_update(dropout: float, rank: int) -> None:
    """Equals autograd's gradient of the frozen weight, summed over two micro-batches; a layer of rank 0 has it too."""
    layer = watched(WeightGradient, dropout)
    layer.keep(rank)
    batches = [torch.randn(2, 5, 4, requires_grad=True) for _ in range(2)]
    expected = torch.zeros(3, 4)
    for x in batches:
        y = layer(x)
        slope = torch.autograd.grad(y.square().sum(), y, retain_graph=True)[0]
        expected += torch.einsum("bto,bti->oi", slope, x)
        layer.statistics.take()
    for x in batches:
        torch.manual_seed(1)
        layer(x).square().sum().backward()
    torch.manual_seed(1)
    found = layer.statistics.take()
    if dropout == 0.0:
        torch.testing.assert_close(found, expected.detach())
    assert found.shape == (3, 4)
    assert layer.statistics.take() is None


def test_mean_squares_of_the_inputs() -> None:
    layer = watched(InputSquares)
    one, other = torch.randn(2, 5, 4), torch.randn(1, 3, 4)
    layer(one)
    layer(other)
    rows = torch.cat([one.reshape(-1, 4), other.reshape(-1, 4)])
    torch.testing.assert_close(layer.statistics.take(), rows.square().mean(0))
    assert layer.statistics.take() is None


def test_the_moment_of_projected_inputs() -> None:
    layer = watched(ProjectedMoment)
    one, other = torch.randn(2, 5, 4), torch.randn(1, 3, 4)
    layer(one)
    layer(other)
    rows = torch.cat([one.reshape(-1, 4), other.reshape(-1, 4)]) @ layer.A.detach().T
    torch.testing.assert_close(layer.statistics.take(), rows.T @ rows / len(rows))
    assert layer.statistics.take() is None


def test_evaluations_and_pauses_are_left_out() -> None:
    layer, x = watched(InputSquares), torch.randn(2, 4)
    with torch.no_grad():
        layer(x)
    layer.statistics.on = False
    layer(x)
    assert layer.statistics.take() is None


def test_nothing_is_collected_by_default_and_outputs_are_the_same() -> None:
    layer, x = watched(WeightGradient), torch.randn(2, 4)
    plain = LowRankLinear(nn.Linear(4, 3), 2, Scale("unit", 2.0))
    assert plain.statistics is None
    assert not plain._forward_hooks
    assert collects_statistics({"a": plain, "b": layer})
    assert not collects_statistics({"a": plain})
    with torch.no_grad():
        assert torch.equal(layer(x), layer.forward(x))


def test_a_copy_collects_its_own() -> None:
    layer, x = watched(InputSquares), torch.randn(2, 4)
    other = copy.deepcopy(layer)
    other(x)
    assert layer.statistics.take() is None
    assert other.statistics.take() is not None
