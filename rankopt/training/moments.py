"""The optimiser's moments of factors that an allocator replaced outside the optimiser."""

from __future__ import annotations

import torch

from rankopt.lowrank.linear import LowRankLinear


def reset_moments(optimizer: torch.optim.Optimizer, layer: LowRankLinear) -> None:
    """Reset the moments of what was replaced in a layer since the optimiser's last step."""
    if layer.changed:
        forget_moments(optimizer, [layer.A, layer.B, layer.g])
    elif layer.renewed:
        for parameter, dim in ((layer.A, 0), (layer.B, 1), (layer.g, 0)):
            renew_moments(optimizer, parameter, dim, layer.m, layer.renewed)
    layer.changed, layer.renewed = False, []


@torch.no_grad()
def renew_moments(
    optimizer: torch.optim.Optimizer, parameter: torch.nn.Parameter, dim: int, active: torch.Tensor, renewed: list[int]
) -> None:
    """Start new components with a first moment of zero and the mean second moment of the other active ones, if any.

    A second moment of zero at a late step, which Adam no longer corrects, would make their first steps several times
    too large.

    Args:
        dim: the dimension that counts components.
        active: the mask `(R,)`.
        renewed: the new components.
    """
    moments = optimizer.state.get(parameter, {})
    if "exp_avg_sq" in moments:
        index = torch.tensor(renewed, device=parameter.device)
        others = active.index_fill(0, index, False)
        others = others if others.any() else active if active.any() else torch.ones_like(active)
        mean = moments["exp_avg_sq"].index_select(dim, others.nonzero().squeeze(1)).mean(dim, keepdim=True)
        moments["exp_avg"].index_fill_(dim, index, 0.0)
        moments["exp_avg_sq"].index_copy_(dim, index, mean.repeat_interleave(len(renewed), dim))


def forget_moments(optimizer: torch.optim.Optimizer, parameters: list[torch.nn.Parameter]) -> None:
    """Let Adam start anew for some parameters, step counts included.

    With moments of zero at a late step count, which Adam no longer corrects for bias, the first tens of steps would be
    up to 6 times too large.
    """
    for parameter in parameters:
        optimizer.state.pop(parameter, None)
