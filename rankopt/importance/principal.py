"""Principal components of data that arrives in batches."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rankopt.importance.double import double

ITERATIONS = 8
"""Of the subspace iteration; PEFT's EVA takes 4."""


class PrincipalComponents:
    """The first k principal components of rows, updated batch by batch.

        [diag(S) V^T; X - mean(X); sqrt(c n / (c + n)) (mean - mean(X))] = U' S' V'^T   for n new rows after c old ones

    Args:
        k: components to keep.
    Attributes:
        S: `(k,)`, singular values of the centred rows, in descending order.
        V: `(k, width)`, one direction a row, its largest entry positive.
        ratios: `(k,)`, the share of the rows' total variance that each direction explains.
    Example:
        >>> components = PrincipalComponents(1)
        >>> components.update(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [3.0, 0.0], [-3.0, 0.0]]))
        >>> components.V.tolist(), round(float(components.ratios), 3)
        ([[1.0, 0.0]], 1.0)

    Source: Ross et al. 2008, "Incremental learning for robust visual tracking"; scikit-learn's IncrementalPCA.
    """

    def __init__(self, k: int) -> None:
        self.k, self.count, self.variance = k, 0, 0.0
        self.mean = self.S = self.V = torch.zeros(0)

    def update(self, X: Tensor) -> None:
        """Add rows `(n, width)`."""
        n, mean = len(X), X.mean(0)
        rows = X - mean
        added = float(double(rows).square().sum())
        if self.count:
            shift = math.sqrt(self.count * n / (self.count + n)) * (self.mean - mean)
            added += float(double(shift).square().sum())
            rows = torch.cat([self.S[:, None] * self.V, rows, shift[None]])
            mean = self.mean + (mean - self.mean) * n / (self.count + n)
        self.S, self.V = leading_directions(rows, self.k)
        self.mean, self.count, self.variance = mean, self.count + n, self.variance + added

    @property
    def ratios(self) -> Tensor:
        return double(self.S).square().cpu() / max(self.variance, torch.finfo(torch.float64).tiny)


@torch.no_grad()
def leading_directions(X: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest singular values of X and their right singular vectors, by subspace iteration where X is large.

    Args:
        X: `(n, width)`.
    Returns:
        `(k,)` and `(k, width)`, fewer where X has fewer rows or columns.
    """
    width = 2 * k
    if width >= min(X.shape):
        _, S, Vh = torch.linalg.svd(X, full_matrices=False)
    else:
        generator = torch.Generator().manual_seed(0)
        Q = torch.empty(X.shape[1], width).normal_(generator=generator).to(X.device)
        for _ in range(ITERATIONS):
            Q = torch.linalg.qr(X.T @ (X @ Q)).Q
        _, S, W = torch.linalg.svd(X @ Q, full_matrices=False)
        Vh = W @ Q.T
    S, Vh = S[:k], Vh[:k]
    largest = Vh.gather(1, Vh.abs().argmax(1, keepdim=True))
    return S, Vh * torch.where(largest < 0, -1.0, 1.0)
