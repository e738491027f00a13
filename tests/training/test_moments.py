"""Moments of factors that were replaced outside the optimiser."""

from __future__ import annotations

import torch

from rankopt.lowrank.linear import LowRankLinear
from rankopt.lowrank.scale import Scale
from rankopt.training.moments import forget_moments, reset_moments


def test_forgotten_moments() -> None:
    """Adam starts anew for the named parameters, so the next step is as large as the first; others go on."""
    a, b, c = (torch.nn.Parameter(torch.ones(2)) for _ in range(3))
    optimizer = torch.optim.AdamW([a, b, c], lr=0.1, weight_decay=0.0)
    for _ in range(500):
        (a.sum() + b.sum()).backward()
        optimizer.step()
        optimizer.zero_grad()
    forget_moments(optimizer, [a, c])  # c was never stepped
    assert optimizer.state[b]["step"] == 500
    before = a.detach().clone()
    (1e-3 * a.sum()).backward()
    optimizer.step()
    torch.testing.assert_close(before - a.detach(), torch.full((2,), 0.1), atol=1e-4, rtol=0)


def test_moments_of_new_components() -> None:
    """First moment zero, second moment the mean of the other active components; all others keep theirs."""
    layer = LowRankLinear(torch.nn.Linear(3, 2), 4, Scale("unit", 1.0))
    layer.open(3)
    layer.g.requires_grad_(True)
    torch.nn.init.normal_(layer.A)
    torch.nn.init.normal_(layer.B)
    optimizer = torch.optim.AdamW([layer.A, layer.B, layer.g], lr=0.1)
    layer(torch.randn(5, 3)).square().sum().backward()
    optimizer.step()
    before = {key: {k: v.clone() for k, v in optimizer.state[getattr(layer, key)].items()} for key in "ABg"}
    layer.renew(3, torch.ones(3), torch.ones(2), 0.5)
    layer.renew(1, torch.ones(3), torch.ones(2), 0.5)
    reset_moments(optimizer, layer)
    assert layer.renewed == []
    for key, dim in (("A", 0), ("B", 1), ("g", 0)):
        now, old = optimizer.state[getattr(layer, key)], before[key]
        for i in range(4):
            first, second = (now[moment].select(dim, i) for moment in ("exp_avg", "exp_avg_sq"))
            if i in (1, 3):
                assert not first.any()
                torch.testing.assert_close(second, old["exp_avg_sq"].index_select(dim, torch.tensor([0, 2])).mean(dim))
            else:
                assert torch.equal(first, old["exp_avg"].select(dim, i))
                assert torch.equal(second, old["exp_avg_sq"].select(dim, i))
        assert now["step"] == 1
