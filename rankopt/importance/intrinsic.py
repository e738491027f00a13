"""The intrinsic dimension of a set of points."""

from __future__ import annotations

import torch
from torch import Tensor

from rankopt.importance.double import double


@torch.no_grad()
def two_nn(X: Tensor) -> float:
    """TwoNN, by maximum likelihood: `d = N / sum_i log(r_i2 / r_i1)`, with r_i1 and r_i2 the distances of point i from
    its nearest and second nearest neighbours.

    Args:
        X: `(n, width)`; of equal rows one counts. Fewer than three distinct ones have dimension 0.
    Example:
        >>> round(two_nn(torch.tensor([[0.0], [1.0], [3.0]])), 2)
        1.37

    Source: Facco et al. 2017, "Estimating the intrinsic dimension of datasets by a minimal neighborhood information".
    """
    points = torch.unique(double(X), dim=0)
    if len(points) < 3:
        return 0.0
    distances = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")
    nearest = distances.fill_diagonal_(torch.inf).topk(2, dim=1, largest=False).values
    total = float((nearest[:, 1] / nearest[:, 0]).log().sum())
    return len(points) / total if total > 0 else 0.0
