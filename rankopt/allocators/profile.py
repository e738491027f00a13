"""A rank pattern with a few parameters, which a search can optimise in tens of trials."""

from __future__ import annotations

import itertools
import math
from typing import Annotated

from pydantic import Field

from rankopt.allocators.base import Allocator, State
from rankopt.allocators.shared.depth import depth_of
from rankopt.allocators.shared.start import smallest_max_rank, start_pattern
from rankopt.core.budget import Budget
from rankopt.core.pattern import RankPattern, Shapes, longest_globs
from rankopt.lowrank.layers import Layers, shapes_of

ROUNDING = 1e-9
"""Tolerance for rounding errors: a share this close to an integer counts as that integer."""
Logit = Annotated[float, Field(allow_inf_nan=False, ge=-50, le=50)]


class Profile(Allocator):
    """Ranks in proportion to a softmax over the layers of module type, depth and squared depth.

        z_k = types[k] + slope * d_k + curvature * d_k^2,   r_k proportional to softmax(z)_k,   cost(r) <= budget

    The depth d runs from -1 in the first block to 1 in the last. It is 0 for a layer whose name has no number, and for
    a model with one block. Layers that no glob matches have logit 0. With all parameters zero and an integer mean rank
    this is uniform LoRA.

    `largest_remainders` rounds the ranks: every layer is within one of its share, and the budget is used as fully as
    whole components allow.

    Args:
        types: glob over layer names -> logit; the longest matching glob applies.
        slope: positive values favour deep layers.
        curvature: positive values favour the first and the last layers.
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
    """Ranks in proportion to weights, rounded by the largest remainder method with a cost per component.

        r*_k = min(R, t w_k) with t such that sum_k c_k r*_k is the budget;   r_k = floor(r*_k), plus one for the set of
        layers that spends most of the rest; among equal sets, the one with the largest remainders

    `Budget.share` (highest averages) can move a layer several components from its share where many others round to
    zero. This rule exceeds one component only to use a rest that no other layer can use.

    Args:
        budget: the allowance.
        weights: one positive number per layer.
        shapes: the layers' shapes.
        max_rank: R, the largest rank of a layer.
    Example:
        >>> from rankopt.core.pattern import Shape
        >>> shapes = {name: Shape(4, 4) for name in "abc"}
        >>> largest_remainders(Budget(ranks=7), {"a": 1.0, "b": 1.0, "c": 3.0}, shapes, 16)
        RankPattern({'a': 2, 'b': 1, 'c': 4})

    Source: Hamilton's method of apportionment, which has one cost for all; the choice between sets is ours.
    """
    costs = {name: budget.cost(shapes[name]) for name in weights}
    share = dict.fromkeys(weights, float(max_rank))
    left, free = float(budget.amount(shapes)), set(weights)
    while free:  # what a full layer cannot use goes to the others
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
    """The layers that get one more component: an exact knapsack over classes of layers with equal cost."""
    classes: dict[int, list[str]] = {}
    for name in sorted(remainders, key=lambda name: (-remainders[name], name)):
        if remainders[name] > ROUNDING:
            classes.setdefault(costs[name], []).append(name)
    best: dict[int, tuple[float, tuple[int, ...]]] = {0: (0.0, ())}  # spent -> (value, number of each class)
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
