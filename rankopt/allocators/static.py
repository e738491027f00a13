"""A fixed rank pattern, written by hand, imported, or found by a search."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from rankopt.allocators.base import Allocator, State
from rankopt.allocators.shared.start import start_pattern
from rankopt.core.budget import Budget
from rankopt.core.pattern import match_globs
from rankopt.lowrank.layers import Layers, shapes_of


class Static(Allocator):
    """Fixed ranks by glob over layer names. A layer has the rank of the longest matching glob, or else 0.

    A budget is optional; if there is one, the pattern must fit it.

    Args:
        ranks: glob -> rank, for example `{"*": 2, "*.query": 8}`.
        found: label of the method that found the pattern. A report averages over patterns with the same label.
    Example:
        >>> Static(ranks={"*.query": 8}).ranks
        {'*.query': 8}

    Source: LoRA (2106.09685) with PEFT's `rank_pattern`.
    """

    needs_budget: ClassVar[bool] = False

    found: str = ""
    ranks: dict[str, Annotated[int, Field(ge=0)]] = Field(default={"*": 1}, min_length=1)

    def start(self, layers: Layers, budget: Budget, steps: int, seed: int) -> State:
        shapes = shapes_of(layers)
        pattern = match_globs(self.ranks, list(layers))
        spent, allowed = budget.spent(pattern, shapes), budget.amount(shapes)
        if spent > allowed:
            raise ValueError(
                f"allocator.ranks must cost at most {allowed} {budget.unit} (the budget, or else model.max_rank "
                f"everywhere), got {spent}"
            )
        return start_pattern(layers, pattern, seed)
