"""SalientLoRA's importance: magnitudes of gates over time, and how strongly they drive other gates."""

from __future__ import annotations

import torch
from torch import Tensor

from rankopt.importance.double import double


@torch.no_grad()
def influence(series: Tensor, correlation: float, slope: float) -> Tensor:
    """The influence of every series on others, in a graph whose edges are regression slopes.

        s_ij = cov(i, j) / var(i)  where corr(i, j) >= `correlation` and s_ij >= `slope`, otherwise no edge
        w_i = sum over j of s_ij v_j,   v_j = w_j, or 1 where j has no edge;   the result is w / sum(w)

    With a slope above 1, an edge leads to a series of larger variance, so the graph has no cycles.

    Args:
        series: `(n, steps)`.
        correlation: smallest correlation of an edge, above 0.
        slope: smallest slope of an edge, above 1.
    Returns:
        `(n,)`, adding up to 1, or zeros without an edge.
    Example:
        >>> steps = torch.tensor([0.0, 1.0, 2.0])
        >>> influence(torch.stack([steps, 3 * steps, -steps]), 0.9, 2.0).tolist()
        [1.0, 0.0, 0.0]

    Source: SalientLoRA (NeurIPS 2024), the authors' code, which breaks cycles of rounding errors.
    """
    series = double(series)
    centred = series - series.mean(1, keepdim=True)
    covariance = centred @ centred.T
    variance = covariance.diagonal()
    slopes = covariance / variance.clamp_min(1e-300)[:, None]
    correlations = covariance / (variance.sqrt()[:, None] * variance.sqrt()).clamp_min(1e-300)
    slopes = torch.where((correlations >= correlation) & (slopes >= slope), slopes, 0.0)
    linked = (slopes > 0).any(1)
    w = torch.zeros(len(series), dtype=torch.float64, device=series.device)
    v = torch.ones_like(w)
    for node in variance.argsort(descending=True).tolist():  # what an edge leads to has a larger variance
        if linked[node]:
            w[node] = v[node] = slopes[node] @ v
    return w / w.sum().clamp_min(1e-300)


@torch.no_grad()
def magnitude(series: Tensor, orthogonality: Tensor, layers: Tensor) -> Tensor:
    """The sizes of gates over steps, weighted by how orthogonal the factors were, as shares of their layers' sums.

        m_i = sum over t of |g_ti| u_t;   u_t = 1 / R_t, scaled to 0..1 over the steps;   the result is m_i / sum of m

    Args:
        series: gates, `(n, steps)`.
        orthogonality: R, the orthogonality penalty at every step, `(steps,)`.
        layers: number of the layer of each gate, `(n,)`.
    Example:
        >>> magnitude(torch.tensor([[1.0, 1.0], [9.0, 3.0]]), torch.tensor([2.0, 1.0]), torch.tensor([0, 0])).tolist()
        [0.25, 0.75]

    Source: as `influence`.
    """
    u = 1 / double(orthogonality).clamp_min(1e-300)
    spread = u.max() - u.min()
    u = (u - u.min()) / spread if spread > 0 else torch.ones_like(u)
    m = double(series).abs() @ u
    layers = layers.to(m.device)
    sums = torch.zeros(int(layers.max()) + 1, dtype=m.dtype, device=m.device).index_add(0, layers, m)
    return m / sums[layers].clamp_min(1e-300)
