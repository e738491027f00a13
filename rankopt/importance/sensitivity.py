"""AdaLoRA's sensitivity: smoothed |weight x gradient| times its smoothed variation."""

from __future__ import annotations

import torch
from torch import Tensor


@torch.no_grad()
def smooth(mean: Tensor, variation: Tensor, weight: Tensor, gradient: Tensor, beta1: float, beta2: float) -> None:
    """Advance the two moving averages of one tensor by one step, in place.

        I = |w * dL/dw|;   Ibar <- beta1 Ibar + (1 - beta1) I;   Ubar <- beta2 Ubar + (1 - beta2) |I - Ibar|

    Ubar uses the Ibar just updated; both start at 0 and are not bias-corrected, as in the authors' code.

    Args:
        mean: Ibar, any shape; updated.
        variation: Ubar, the same shape; updated.
        weight: w, the same shape.
        gradient: dL/dw, the same shape.
        beta1: in [0, 1).
        beta2: in [0, 1).
    Example:
        >>> mean, variation = torch.zeros(1), torch.zeros(1)
        >>> smooth(mean, variation, torch.tensor([2.0]), torch.tensor([-1.0]), 0.85, 0.85)
        >>> round(float(mean), 6), round(float(variation), 6)
        (0.3, 0.255)

    Source: Zhang et al. 2023 (2303.10512) eqs. 8-10.
    """
    importance = (weight * gradient).abs_()
    mean.mul_(beta1).add_(importance, alpha=1 - beta1)
    variation.mul_(beta2).add_((importance - mean).abs_(), alpha=1 - beta2)


@torch.no_grad()
def triplet(A: Tensor, B: Tensor, g: Tensor) -> Tensor:
    """The importance of every component from the importance of its entries.

        S_i = s(g_i) + mean_j s(B_ji) + mean_j s(A_ij)

    Args:
        A: entry scores `Ibar * Ubar`, `(r, in)`.
        B: entry scores, `(out, r)`.
        g: gate scores, `(r,)`.
    Returns:
        `(r,)`.
    Example:
        >>> triplet(torch.ones(2, 3), torch.ones(4, 2), torch.tensor([0.0, 1.0])).tolist()
        [2.0, 3.0]

    Source: Zhang et al. 2023 (2303.10512) eq. 7.
    """
    return g + B.mean(dim=0) + A.mean(dim=1)
