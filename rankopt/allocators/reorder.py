"""Rewrite components as singular directions, so that every prefix is the best approximation of its rank."""

from __future__ import annotations

import torch
from torch import Tensor

from rankopt.importance.spectral import low_rank_svd
from rankopt.lowrank.linear import LowRankLinear


@torch.no_grad()
def reorder(layer: LowRankLinear) -> Tensor:
    """Replace a layer's active components by singular directions, largest first. The layer's map stays the same.

        s B diag(g) A = U S V^T;   A_i <- sqrt(S_i / s) V_i^T;   B_i <- sqrt(S_i / s) U_i;   g_i <- 1

    Args:
        layer: changed in place.
    Returns:
        S, `(rank,)`, in descending order.
    """
    A, B, g = layer.active()
    if layer.rank == 0:
        return torch.zeros(0)
    U, S, V = low_rank_svd(A, layer.s * B * g)
    root = (S / layer.s).sqrt()
    layer.replace((V * root).T, U * root)
    layer.keep(len(S))
    return S.cpu()
