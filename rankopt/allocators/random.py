"""A control: a random pattern that stays fixed during training."""

from __future__ import annotations

from random import Random as Generator

from rankopt.allocators.base import Allocator, State
from rankopt.allocators.shared.start import smallest_max_rank, start_pattern
from rankopt.core.budget import Budget
from rankopt.core.seeds import stream
from rankopt.lowrank.layers import Layers, shapes_of


class Random(Allocator):
    """Ranks in proportion to weights drawn uniformly from the simplex, once per seed.

        w_k ~ Exp(1),   r_k proportional to w_k,   cost(r) <= budget

    An allocator that does not beat this control has not shown that its choice of layers matters.

    Example:
        >>> Random().needs_budget
        True
    """

    def start(self, layers: Layers, budget: Budget, steps: int, seed: int) -> State:
        weights = {name: Generator(stream(seed, "weight", name)).expovariate(1.0) for name in layers}
        return start_pattern(layers, budget.share(weights, shapes_of(layers), smallest_max_rank(layers)), seed)
