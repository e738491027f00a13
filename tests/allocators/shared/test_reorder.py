"""Reordering keeps a layer's map and sorts its components by singular value."""

from __future__ import annotations

import torch
from torch import nn

from rankopt.allocators.shared.reorder import reorder
from rankopt.lowrank.linear import LowRankLinear
from rankopt.lowrank.scale import Scale


def test_the_map_stays_and_prefixes_are_best() -> None:
    """Every prefix of the reordered components is the truncated SVD of the update."""
    torch.manual_seed(0)
    layer = LowRankLinear(nn.Linear(6, 5), max_rank=4, scale=Scale("init", 8.0))
    layer.open(3)
    with torch.no_grad():
        layer.A.normal_()
        layer.B.normal_()
        layer.g.normal_()
    update = layer.update()
    U, S, Vh = torch.linalg.svd(update)
    found = reorder(layer)
    torch.testing.assert_close(layer.update(), update, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found, S[:3], atol=1e-4, rtol=1e-4)
    for rank in (2, 1):
        layer.keep(rank)
        torch.testing.assert_close(layer.update(), (U[:, :rank] * S[:rank]) @ Vh[:rank], atol=1e-4, rtol=1e-4)


def test_with_a_moment_prefixes_have_the_smallest_error_of_the_outputs() -> None:
    """The map stays, and the expected squared error of a prefix's outputs is that of the dense weighted SVD."""
    torch.manual_seed(1)
    layer = LowRankLinear(nn.Linear(6, 5), max_rank=3, scale=Scale("unit", 2.0))
    layer.open(3)
    with torch.no_grad():
        layer.A.normal_()
        layer.B.normal_()
        layer.g.normal_()
    x = torch.randn(400, 6) * torch.tensor([5.0, 1.0, 1.0, 0.2, 0.1, 3.0])
    update = layer.update()
    h = x @ layer.A.detach().T
    S = torch.linalg.svdvals(update @ x.T / 20)  # 20 is the root of 400
    found = reorder(layer, h.T @ h / 400)
    torch.testing.assert_close(layer.update(), update, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found, S[:3], atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(layer.A.norm(dim=1), layer.B.norm(dim=0), atol=1e-4, rtol=1e-4)
    for rank in (2, 1):
        layer.keep(rank)
        error = ((update - layer.update()) @ x.T).square().sum(0).mean()
        torch.testing.assert_close(error, S[rank:3].square().sum(), atol=1e-3, rtol=1e-3)


def test_rank_zero() -> None:
    """A layer without components has no singular values."""
    layer = LowRankLinear(nn.Linear(3, 3), max_rank=2, scale=Scale("unit", 1.0))
    assert len(reorder(layer)) == 0
