"""Principal components from batches against one decomposition of everything."""

from __future__ import annotations

import pytest
import torch

from rankopt.importance.principal import PrincipalComponents, leading_directions


@pytest.mark.parametrize("sizes", [[40], [10, 30], [7, 12, 21]])
def test_batches_give_what_all_rows_give(sizes: list[int]) -> None:
    """Exact while no direction is cut off: singular values, directions up to sign, explained shares and the mean."""
    X = torch.randn(40, 5, generator=torch.Generator().manual_seed(0)) * torch.tensor([5.0, 3.0, 2.0, 1.0, 0.5]) + 3
    found = PrincipalComponents(5)
    for rows in X.split(sizes):
        found.update(rows)
    _, S, Vh = torch.linalg.svd(X - X.mean(0), full_matrices=False)
    torch.testing.assert_close(found.S, S)
    torch.testing.assert_close((found.V * Vh).sum(1).abs(), torch.ones(5))
    torch.testing.assert_close(found.ratios, (S**2 / (S**2).sum()).double(), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(found.mean, X.mean(0))


def test_leading_directions_of_a_large_matrix() -> None:
    """Subspace iteration, where the spectrum falls: against the whole decomposition; the largest entry is positive."""
    generator = torch.Generator().manual_seed(1)
    U = torch.linalg.qr(torch.randn(60, 20, generator=generator)).Q
    V = torch.linalg.qr(torch.randn(30, 20, generator=generator)).Q
    X = U * 0.7 ** torch.arange(20) @ V.T
    S, Vh = leading_directions(X, 4)
    torch.testing.assert_close(S, 0.7 ** torch.arange(4), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close((Vh * V.T[:4]).sum(1).abs(), torch.ones(4), atol=1e-4, rtol=1e-4)
    assert (Vh.gather(1, Vh.abs().argmax(1, keepdim=True)) > 0).all()


def test_constant_rows_explain_nothing() -> None:
    found = PrincipalComponents(2)
    found.update(torch.ones(6, 3))
    assert found.ratios.tolist() == [0.0, 0.0]
