"""The joint map of several layers equals the separate layers, and a NaN in one layer does not reach another."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from rankopt.lowrank.joined import joined_linear
from rankopt.lowrank.linear import LowRankLinear
from rankopt.lowrank.scale import Scale

IN, OUT = 6, 5


def make(base: nn.Module, max_rank: int, mask: list[int], frozen: int = 0, gate: bool = False) -> LowRankLinear:
    layer = LowRankLinear(base, max_rank, Scale("active", 3.0)).double()
    with torch.no_grad():
        for value in (layer.A, layer.B, layer.g):
            value.normal_()
    layer.g.requires_grad_(gate)
    layer.open(max_rank)
    layer.mask(torch.tensor(mask) > 0)
    layer.frozen = frozen
    return layer


STACKS = {
    "equal ranks": [(4, [1, 1, 0, 0]), (4, [1, 1, 0, 0]), (4, [1, 1, 0, 0])],
    "different ranks": [(4, [1, 1, 1, 1]), (4, [1, 0, 0, 0])],
    "scattered": [(4, [0, 1, 0, 1]), (4, [1, 1, 0, 0])],
    "different sizes": [(2, [1, 1]), (5, [1, 1, 1, 0, 1]), (3, [1, 0, 0])],
    "one rank 0": [(4, [0, 0, 0, 0]), (4, [1, 1, 0, 0])],
    "all rank 0": [(4, [0, 0, 0, 0]), (4, [0, 0, 0, 0])],
    "frozen": [(4, [1, 1, 1, 0], 2), (4, [1, 1, 1, 1])],
    "gates": [(4, [1, 0, 1, 1], 1, True), (4, [1, 1, 1, 1], 0, False), (3, [1, 1, 1], 0, True)],
}


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("name", STACKS)
def test_same_as_separate_layers(name: str, transposed: bool) -> None:
    """Values and gradients equal those of every layer on its own rows; the same parameters get no gradient."""
    torch.manual_seed(0)
    base = (Conv1D(OUT, IN) if transposed else nn.Linear(IN, OUT)).double()
    layers = [make(base, *how) for how in STACKS[name]]
    x = torch.randn(len(layers), 7, IN, dtype=torch.double, requires_grad=True)
    weights = torch.randn(len(layers), 7, OUT, dtype=torch.double)

    def slopes() -> list[torch.Tensor | None]:
        values = [x, *(p for layer in layers for p in (layer.A, layer.B, layer.g))]
        found = [value.grad for value in values]
        for value in values:
            value.grad = None
        return found

    ours = joined_linear(layers, x)
    (ours * weights).sum().backward()
    found = slopes()
    theirs = torch.stack([layer(rows) for layer, rows in zip(layers, x, strict=True)])
    (theirs * weights).sum().backward()
    torch.testing.assert_close(ours, theirs)
    for mine, expected in zip(found, slopes(), strict=True):
        assert (mine is None) == (expected is None)
        if mine is not None and expected is not None:
            torch.testing.assert_close(mine, expected)


def test_no_unneeded_input_gradient() -> None:
    """In a model's first layer the input needs no gradient, but the factors do."""
    base = nn.Linear(IN, OUT).double()
    layers = [make(base, 2, [1, 1]), make(base, 2, [1, 0])]
    joined_linear(layers, torch.ones(2, 3, IN, dtype=torch.double)).sum().backward()
    assert all(layer.A.grad is not None for layer in layers)
    assert base.weight.grad is None


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_non_finite_values_stay_in_their_layer(value: float) -> None:
    """Factors and inputs of a diverged trial change neither values nor gradients of another trial."""
    torch.manual_seed(0)
    base = nn.Linear(IN, OUT).double()
    layers = [make(base, 2, [1, 1]), make(base, 4, [1, 1, 1, 0])]
    x = torch.randn(2, 3, IN, dtype=torch.double)
    x[0] = value
    with torch.no_grad():
        layers[0].A.fill_(value)
        layers[0].B.fill_(value)
    x.requires_grad_()
    y = joined_linear(layers, x)
    y[1].sum().backward()
    assert not y[0].isfinite().any()
    assert y[1].isfinite().all()
    for grad in (x.grad[1], layers[1].A.grad, layers[1].B.grad):
        assert grad.isfinite().all()


def test_bf16_is_close() -> None:
    """Under autocast the products are in bfloat16, the gradients of the factors in float32."""
    torch.manual_seed(0)
    base = nn.Linear(64, 64)
    layers = [make(base, 4, [1, 1, 0, 0]).float(), make(base, 4, [1, 1, 1, 1]).float()]
    x = torch.randn(2, 8, 64)
    with torch.autocast("cpu", torch.bfloat16):
        y = joined_linear(layers, x)
    exact = torch.stack([layer(rows) for layer, rows in zip(layers, x, strict=True)])
    assert y.dtype == torch.bfloat16
    assert (y.float() - exact).abs().max() < 0.05 * exact.abs().max()
    y.float().sum().backward()
    assert layers[0].A.grad.dtype == torch.float32
