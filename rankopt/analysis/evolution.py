"""Evolutionary search over rank patterns of one budget."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence

from rankopt.core.pattern import RankPattern

PARENTS = 4
"""Number of best patterns from which children are made."""


def evolve(
    start: Sequence[RankPattern],
    costs: Mapping[str, int],
    allowed: int,
    max_ranks: Mapping[str, int],
    rate: Callable[[RankPattern], tuple[float, ...]],
    looks: int,
    seed: int,
) -> RankPattern:
    """The best pattern that an evolutionary search finds within a budget.

    A child takes the rank of every layer from one of two parents (crossover) and moves components from one layer to
    another (mutation). It is then repaired: components of random layers are removed while it exceeds the budget, and
    added while one more fits. The parents are the `PARENTS` best patterns evaluated so far.

    Args:
        start: initial patterns within the budget; all are evaluated.
        costs: cost of one component by layer, in the budget's unit.
        allowed: the budget.
        max_ranks: the largest rank of each layer.
        rate: called once per pattern; the lexicographically smallest value is best.
        looks: the number of patterns to evaluate; those of `start` are evaluated in any case.
        seed: random seed.
    Example:
        >>> wanted = {"a": 3, "b": 1}
        >>> miss = lambda pattern: (sum(abs(pattern[name] - rank) for name, rank in wanted.items()),)
        >>> even = RankPattern({"a": 2, "b": 2})
        >>> evolve([even], {"a": 1, "b": 1}, 4, {"a": 4, "b": 4}, miss, looks=20, seed=0)
        RankPattern({'a': 3, 'b': 1})

    Source: Guo et al. 2020 (1904.00420), with a repair where they reject children over budget.
    """
    draw = random.Random(seed)
    seen: dict[RankPattern, tuple[float, ...]] = {}
    for pattern in start:
        if pattern not in seen:
            seen[pattern] = rate(pattern)
    stale = 0
    while len(seen) < looks and stale < 50:  # a small space may have no further pattern
        parents = sorted(seen, key=lambda pattern: seen[pattern])[:PARENTS]
        child = _repair(_child(draw, parents, max_ranks), costs, allowed, max_ranks, draw)
        stale = stale + 1 if child in seen else 0
        if child not in seen:
            seen[child] = rate(child)
    return min(seen, key=lambda pattern: seen[pattern])


def _child(draw: random.Random, parents: Sequence[RankPattern], max_ranks: Mapping[str, int]) -> dict[str, int]:
    one, other = draw.choice(parents), draw.choice(parents)
    ranks = {name: draw.choice((one[name], other[name])) for name in sorted(one)}
    giver = draw.choice([name for name in ranks if ranks[name]] or list(ranks))
    taker = draw.choice([name for name in ranks if ranks[name] < max_ranks[name] and name != giver] or [giver])
    moved = draw.randint(1, max(1, ranks[giver] // 2))
    ranks[giver] = max(0, ranks[giver] - moved)
    ranks[taker] = min(max_ranks[taker], ranks[taker] + moved)
    return ranks


def _repair(
    ranks: dict[str, int], costs: Mapping[str, int], allowed: int, max_ranks: Mapping[str, int], draw: random.Random
) -> RankPattern:
    spent = sum(costs[name] * rank for name, rank in ranks.items())
    while spent > allowed:
        name = draw.choice([name for name, rank in ranks.items() if rank])
        ranks[name] -= 1
        spent -= costs[name]
    while room := [n for n in ranks if ranks[n] < max_ranks[n] and spent + costs[n] <= allowed]:
        name = draw.choice(room)
        ranks[name] += 1
        spent += costs[name]
    return RankPattern(ranks)
