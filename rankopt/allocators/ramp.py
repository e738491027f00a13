"""Ranks that grow or fall linearly with depth."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from rankopt.allocators.base import Allocator, State
from rankopt.allocators.shared.depth import depth_weights
from rankopt.allocators.shared.start import smallest_max_rank, start_pattern
from rankopt.core.budget import Budget
from rankopt.lowrank.layers import Layers, shapes_of


class Ramp(Allocator):
    """Ranks linear in the depth of the block.

        w_k = 1 + (ratio - 1) (d_k - d_min) / (d_max - d_min),   r_k proportional to w_k

    The depth d is the first number in a layer's name, or 0 without one.

    Args:
        direction: "up" gives the last block the largest rank, "down" the first.
        ratio: largest rank divided by smallest rank.
    Example:
        >>> Ramp().ratio
        3.0

    Source: PRILoRA, Benedek and Wolf 2024 (2401.11316): rank 4 in the first layer to 12 in the last. Departures: A is
    not pruned (`prilora` does so), and "down" is added as a control.
    """

    direction: Literal["up", "down"] = "up"
    ratio: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 3.0

    def start(self, layers: Layers, budget: Budget, steps: int, seed: int) -> State:
        weights = depth_weights(list(layers), self.ratio, down=self.direction == "down")
        return start_pattern(layers, budget.share(weights, shapes_of(layers), smallest_max_rank(layers)), seed)
