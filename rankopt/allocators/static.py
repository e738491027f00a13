"""A given rank pattern: one found by a search, imported, or written by hand."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from rankopt.allocators.base import Allocator, State, start_pattern
from rankopt.core.budget import Budget
from rankopt.core.pattern import match_globs
from rankopt.lowrank.layers import Layers, shapes_of


class Static(Allocator):
    """Fixed ranks by glob over layer names; a layer takes the rank of the longest one that matches, else 0.

    A budget is optional; when there is one the pattern must meet it.

    Args:
        ranks: glob -> rank, for example `{"*": 2, "*.query": 8}`.
        found: how the pattern was found, in a word: patterns of one word, one for each seed, are repetitions of one way
            to find patterns, and a report takes their mean.
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
                f"allocator.ranks must fit {allowed} {budget.unit}, the budget or else model.max_rank everywhere, "
                f"got {spent}; lower some ranks, or raise that"
            )
        return start_pattern(layers, pattern, seed)
