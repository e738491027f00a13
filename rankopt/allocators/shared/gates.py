"""What methods with a trained gate share: suppressing components for now, and masking them at the end."""

from __future__ import annotations

import math

import torch

from rankopt.allocators.shared.start import smallest_max_rank
from rankopt.core.budget import Budget, Mask
from rankopt.core.pattern import RankPattern
from rankopt.lowrank.layers import Layers, pattern_of, shapes_of


def generous_rank(layers: Layers, budget: Budget, ratio: float) -> int:
    """The rank every layer starts with: `ratio` times the budget's uniform rank, rounded up, at most the physical rank.

    Example: a budget of mean rank 8 and ratio 1.5 give 12.
    """
    # 1.1 x 10 is 11, and not the 12 that its rounding error would make of it
    return min(smallest_max_rank(layers), math.ceil(ratio * budget.level(shapes_of(layers)) - 1e-9))


@torch.no_grad()
def suppress(layers: Layers, keep: Mask) -> None:
    """Set the gates of all components to zero that are not kept; they still receive gradient."""
    for name, layer in layers.items():
        dropped = [index for index, kept in enumerate(keep[name]) if not kept]
        layer.g[dropped] = 0.0


@torch.no_grad()
def settle(layers: Layers, keep: Mask) -> RankPattern:
    """Mask what is not kept, for good, and put the kept components first.

    Args:
        keep: for every layer, as many entries as it has open components.
    """
    for name, layer in layers.items():
        kept = torch.tensor(keep[name] + [False] * (layer.max_rank - len(keep[name])), device=layer.m.device)
        layer.mask(kept)
        layer.permute(torch.argsort(~kept, stable=True))
    return pattern_of(layers)
