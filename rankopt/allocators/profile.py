"""A pattern in a few numbers, which a search can learn in tens of trials."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field

from rankopt.allocators.base import Allocator, State, depth_of, smallest_max_rank, start_pattern
from rankopt.core.budget import Budget
from rankopt.core.pattern import longest_globs
from rankopt.lowrank.linear import Layers, shapes_of

Logit = Annotated[float, Field(allow_inf_nan=False, ge=-50, le=50)]


class Profile(Allocator):
    """Ranks in proportion to a softmax over the layers of module type, depth and squared depth.

        z_k = types[k] + slope * d_k + curvature * d_k^2,   r_k proportional to softmax(z)_k,   cost(r) <= budget

    The depth d runs from -1 at the shallowest block to 1 at the deepest; a layer whose name holds no number, and every
    layer of a model with a single block, stands in the middle (0), so neither slope nor curvature moves it. A layer
    whose type no glob names has logit 0. All zero is uniform LoRA at a whole mean rank. The softmax's denominator
    cancels.

    Whole ranks by the rule of `Budget.share`: the budget is met as exactly as components allow, in parameters where the
    budget counts them, and more budget never takes a rank away from a layer.

    Args:
        types: glob over layer names -> logit; the longest glob that matches counts.
        slope: more to the deep layers when positive.
        curvature: more to both ends when positive.
    Example:
        >>> Profile(types={"*.query": 1.0}, slope=-0.5).curvature
        0.0

    Source: ours; the shares are rounded by Sainte-Lague's highest averages rather than by largest remainders, which can
    take a rank away from a layer when the budget grows.
    """

    types: dict[str, Logit] = Field(default_factory=dict)
    slope: Logit = 0.0
    curvature: Logit = 0.0

    def start(self, layers: Layers, budget: Budget, steps: int, seed: int) -> State:
        logits = longest_globs(self.types, list(layers), 0.0)
        depths = [depth for name in layers if (depth := depth_of(name)) is not None]
        low, high = min(depths, default=0), max(depths, default=0)
        for name in layers:
            depth = depth_of(name)
            d = 2 * (depth - low) / (high - low) - 1 if depth is not None and high > low else 0.0
            logits[name] += self.slope * d + self.curvature * d * d
        top = max(logits.values())
        weights = {name: math.exp(logit - top) for name, logit in logits.items()}
        return start_pattern(layers, budget.share(weights, shapes_of(layers), smallest_max_rank(layers)), seed)
