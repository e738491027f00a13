"""A pattern in a few numbers, which a search can learn in tens of trials."""

from __future__ import annotations

import itertools
import math
from typing import Annotated

from pydantic import Field

from rankopt.allocators.base import Allocator, State, depth_of, smallest_max_rank, start_pattern
from rankopt.core.budget import Budget
from rankopt.core.pattern import RankPattern, Shapes, longest_globs
from rankopt.lowrank.layers import Layers, shapes_of

ROUNDING = 1e-9
"""A share this close to a whole number is one: floating-point sums fall short of it."""
Logit = Annotated[float, Field(allow_inf_nan=False, ge=-50, le=50)]


class Profile(Allocator):
    """Ranks in proportion to a softmax over the layers of module type, depth and squared depth.

        z_k = types[k] + slope * d_k + curvature * d_k^2,   r_k proportional to softmax(z)_k,   cost(r) <= budget

    The depth d runs from -1 at the shallowest block to 1 at the deepest; a layer whose name holds no number, and every
    layer of a model with a single block, stands in the middle (0), so neither slope nor curvature moves it. A layer
    whose type no glob names has logit 0. All zero is uniform LoRA at a whole mean rank. The softmax's denominator
    cancels.

    Whole ranks by `largest_remainders`: every layer within one of its share, and the budget met as exactly as whole
    components allow, in parameters where the budget counts them.

    Args:
        types: glob over layer names -> logit; the longest glob that matches counts.
        slope: more to the deep layers when positive.
        curvature: more to both ends when positive.
    Example:
        >>> Profile(types={"*.query": 1.0}, slope=-0.5).curvature
        0.0

    Source: ours; with slope alone it is a ramp (PRILoRA, 2401.11316) on an exponential scale.
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
        pattern = largest_remainders(budget, weights, shapes_of(layers), smallest_max_rank(layers))
        return start_pattern(layers, pattern, seed)


def largest_remainders(budget: Budget, weights: dict[str, float], shapes: Shapes, max_rank: int) -> RankPattern:
    """Ranks in proportion to weights, rounded by largest remainders on what a component costs.

        r*_k = min(R, t w_k) with t such that sum_k c_k r*_k is the budget;   r_k = floor(r*_k), then one more for those
        layers that spend most of the rest, and of sets that spend as much the one with the largest remainders

    `Budget.share` (highest averages) lets a layer stray from its share by several components where many others round
    to none; this rule never does, but for what only a cheaper layer can still use.

    Args:
        budget: the allowance.
        weights: one positive number per layer.
        shapes: the layers' shapes.
        max_rank: R, no layer gets more.
    Example:
        >>> from rankopt.core.pattern import Shape
        >>> shapes = {name: Shape(4, 4) for name in "abc"}
        >>> largest_remainders(Budget(ranks=7), {"a": 1.0, "b": 1.0, "c": 3.0}, shapes, 16)
        RankPattern({'a': 2, 'b': 1, 'c': 4})

    Source: Hamilton's method of apportionment, which knows one cost only; the choice between sets is ours.
    """
    costs = {name: budget.cost(shapes[name]) for name in weights}
    share = dict.fromkeys(weights, float(max_rank))
    left, free = float(budget.amount(shapes)), set(weights)
    while free:  # the share of a full layer goes to the others
        level = max(0.0, left) / sum(weights[name] * costs[name] for name in free)
        full = {name for name in free if level * weights[name] >= max_rank}
        if not full:
            share |= {name: level * weights[name] for name in free}
            break
        left -= sum(max_rank * costs[name] for name in full)
        free -= full
    ranks = {name: math.floor(value + ROUNDING) for name, value in share.items()}
    rest = budget.amount(shapes) - sum(ranks[name] * costs[name] for name in ranks)
    for name in _rounded_up({name: share[name] - rank for name, rank in ranks.items()}, costs, rest):
        ranks[name] += 1
        rest -= costs[name]
    order = sorted(ranks, key=lambda name: (ranks[name] - share[name], name))
    while fitting := [name for name in order if costs[name] <= rest and ranks[name] < max_rank]:
        for name in fitting:
            if costs[name] <= rest:
                ranks[name] += 1
                rest -= costs[name]
    return RankPattern(ranks)


def _rounded_up(remainders: dict[str, float], costs: dict[str, int], rest: int) -> list[str]:
    """The layers whose one more component spends most of the rest; an exact knapsack over the classes of equal cost."""
    classes: dict[int, list[str]] = {}
    for name in sorted(remainders, key=lambda name: (-remainders[name], name)):
        if remainders[name] > ROUNDING:
            classes.setdefault(costs[name], []).append(name)
    best: dict[int, tuple[float, tuple[int, ...]]] = {0: (0.0, ())}  # spent -> what it is worth, how many of each class
    for cost, names in classes.items():
        worth = [0.0, *itertools.accumulate(cost * remainders[name] for name in names)]
        reached: dict[int, tuple[float, tuple[int, ...]]] = {}
        for spent, (value, counts) in best.items():
            for count in range(min(len(names), (rest - spent) // cost) + 1):
                total, found = spent + count * cost, (value + worth[count], (*counts, count))
                reached[total] = max(reached.get(total, found), found)
        best = reached
    chosen = best[max(best)][1]
    return [name for names, count in zip(classes.values(), chosen, strict=True) for name in names[:count]]
