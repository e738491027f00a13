"""AdaLoRA's importance: smoothed sensitivity |weight * gradient| times its smoothed variation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


@torch.no_grad()
def smooth(
    means: Sequence[Tensor],
    variations: Sequence[Tensor],
    weights: Sequence[Tensor],
    gradients: Sequence[Tensor],
    beta1: float,
    beta2: float,
) -> None:
    """Update the two moving averages of many tensors in place; on a GPU with one kernel for all of them.

        I = |w * dL/dw|;   Ibar <- beta1 Ibar + (1 - beta1) I;   Ubar <- beta2 Ubar + (1 - beta2) |I - Ibar|

    Ubar uses the updated Ibar. Both start at 0 without bias correction, as in the authors' code.

    Args:
        means: Ibar of each tensor, any shapes; updated.
        variations: Ubar, the same shapes; updated.
        weights: w, the same shapes.
        gradients: dL/dw, the same shapes.
        beta1: in [0, 1).
        beta2: in [0, 1).
    Example:
        >>> mean, variation = torch.zeros(1), torch.zeros(1)
        >>> smooth([mean], [variation], [torch.tensor([2.0])], [torch.tensor([-1.0])], 0.85, 0.85)
        >>> round(float(mean), 6), round(float(variation), 6)
        (0.3, 0.255)

    Source: Zhang et al. 2023 (2303.10512) eqs. 8-10.
    """
    if not means:
        return
    importance = torch._foreach_mul(list(weights), list(gradients))
    torch._foreach_abs_(importance)
    torch._foreach_lerp_(list(means), importance, 1 - beta1)
    torch._foreach_sub_(importance, list(means))
    torch._foreach_abs_(importance)
    torch._foreach_lerp_(list(variations), importance, 1 - beta2)


@torch.no_grad()
def triplet(A: Tensor, B: Tensor, g: Tensor) -> Tensor:
    """The importance of every component, from the importance of its entries.

        S_i = s(g_i) + mean_j s(B_ji) + mean_j s(A_ij)

    Args:
        A: entry scores `Ibar * Ubar`, `(..., r, in)`.
        B: entry scores, `(..., out, r)`.
        g: gate scores, `(..., r)`.
    Returns:
        `(..., r)`.
    Example:
        >>> triplet(torch.ones(2, 3), torch.ones(4, 2), torch.tensor([0.0, 1.0])).tolist()
        [2.0, 3.0]

    Source: Zhang et al. 2023 (2303.10512) eq. 7.
    """
    return g + B.mean(dim=-2) + A.mean(dim=-1)
