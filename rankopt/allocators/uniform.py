"""LoRA: the same rank for every layer."""

from __future__ import annotations

from rankopt.allocators.base import Allocator, State
from rankopt.allocators.shared.start import smallest_max_rank, start_pattern
from rankopt.core.budget import Budget
from rankopt.lowrank.layers import Layers, shapes_of


class Uniform(Allocator):
    """Fixed-rank LoRA: the largest uniform rank within the budget, plus one for as many layers as fit.

        r_k = r or r + 1,   cost(r_1, ..., r_n) <= budget

    Example:
        >>> Uniform().model_dump()
        {}

    Source: Hu et al. 2021 (2106.09685).
    """

    def start(self, layers: Layers, budget: Budget, steps: int, seed: int) -> State:
        return start_pattern(layers, budget.uniform(shapes_of(layers), smallest_max_rank(layers)), seed)
