"""Rewrite components as singular directions, so that every prefix is the best approximation of its rank."""

from __future__ import annotations

import torch
from torch import Tensor

from rankopt.importance.double import double
from rankopt.importance.spectral import low_rank_svd
from rankopt.lowrank.linear import LowRankLinear


@torch.no_grad()
def reorder(layer: LowRankLinear, moment: Tensor | None = None) -> Tensor:
    """Replace a layer's active components by singular directions, largest first. The layer's map stays the same.

        without a moment   s B diag(g) A = U S V^T;   A_i <- sqrt(S_i / s) V_i^T;   B_i <- sqrt(S_i / s) U_i;   g_i <- 1
        with H             s B diag(g) H^(1/2) = U S V^T;   s B'_i A'_i = U_i U_i^T s B diag(g) A,   |A'_i| = |B'_i|

    Args:
        layer: changed in place.
        moment: H = E[(A x)(A x)^T], `(rank, rank)`. A prefix then has the smallest expected squared error of the
            layer's outputs, instead of the smallest squared error of the update.
    Returns:
        S, `(rank,)`, in descending order.
    """
    A, B, g = layer.active()
    if layer.rank == 0:
        return torch.zeros(0)
    if moment is None:
        U, S, V = low_rank_svd(A, layer.s * B * g)
        root = (S / layer.s).sqrt()
        layer.replace((V * root).T, U * root)
    else:
        U, S, _ = low_rank_svd(_root(moment.to(A.device)), layer.s * B * g)
        rows = U.T @ (B * g) @ A
        root = rows.norm(dim=1, keepdim=True).sqrt().clamp_min(torch.finfo(rows.dtype).tiny)
        layer.replace(rows / root, U * root.T)
    layer.keep(len(S))
    return S.cpu()


def _root(moment: Tensor) -> Tensor:
    """The symmetric square root."""
    values, vectors = torch.linalg.eigh(double(moment))
    root: Tensor = (vectors * values.clamp_min(0.0).sqrt()) @ vectors.T
    return root.to(moment)
