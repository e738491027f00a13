"""The knapsack at one budget for costs with a small common divisor: search around the linear relaxation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from rankopt.analysis.knapsack import Floats, Gains, Group, concave_groups, greedy
from rankopt.core.pattern import RankPattern

STATES = 2_000_000
"""The largest number of combinations held in memory; the search stops beyond it."""


def best_at(gains: Gains, costs: Mapping[str, int], budget: int) -> tuple[RankPattern, bool]:
    """The pattern of largest gain within a budget, for any budget and costs.

    Let p be the gain per parameter of the first component that does not fit. Any counts k_j from the groups of equal
    cost fall short of the bound of the linear relaxation by

        sum_j loss_j(k_j) + p (budget - sum_j c_j k_j),    loss_j(k) = |sum of (g_ji - p c_j) over components moved|

    with no negative term. A choice better than the greedy one falls short by less, so each k_j lies in a small window
    around the linear optimum. All remaining combinations are evaluated.

    Args:
        gains: concave curves.
        costs: parameters per component of every layer.
        budget: in parameters.
    Returns:
        The pattern, and whether it is proven optimal; if not, it is the greedy one.
    Raises:
        ValueError: a curve is not concave.
    Example:
        >>> best_at({"q": [0, 4, 5], "ffn": [0, 7, 8]}, {"q": 8, "ffn": 20}, 28)
        (RankPattern({'ffn': 1, 'q': 1}), True)

    Source: the core of a knapsack, Balas and Zemel 1980.
    """
    found = greedy(gains, costs, budget)
    groups = sorted(concave_groups(gains, costs), key=lambda group: -group.cost)  # the cheapest fills the rest
    if not groups:
        return found, True
    steps = [np.diff(group.gains) for group in groups]
    counts, price = _linear([group.cost for group in groups], steps, budget)
    held = sum(float(gains[name][rank]) for name, rank in found.items())
    left = budget - sum(group.cost * count for group, count in zip(groups, counts, strict=True))
    bound = sum(float(group.gains[count]) for group, count in zip(groups, counts, strict=True)) + price * left
    gap = bound - held
    tiny = 1e-13 * abs(bound)
    loss, spent, chosen = np.zeros(1), np.zeros(1, np.int64), np.zeros((1, 0), np.int64)
    for index, (group, own, count) in enumerate(zip(groups, steps, counts, strict=True)):
        if gap <= tiny:
            return found, True
        moves, losses = _moves(own - price * group.cost, count, gap)
        if index == len(groups) - 1:  # as many of the last group as fit; fewer would only lose more
            most = np.minimum((budget - spent) // group.cost, moves[-1])
            fits = most >= moves[0]
            loss, spent, chosen, most = loss[fits], spent[fits], chosen[fits], most[fits]
            total = loss + losses[most - moves[0]] + price * (budget - spent - most * group.cost)
            if not len(total) or total.min() >= gap - tiny:
                return found, True
            best = int(total.argmin())
            return _pattern(gains, groups, (*chosen[best], most[best])), True
        if len(loss) * len(moves) > 50 * STATES:
            return found, False
        first, second = np.nonzero(loss[:, None] + losses < gap)
        if len(first) > STATES:
            return found, False
        loss, spent = loss[first] + losses[second], spent[first] + group.cost * moves[second]
        chosen = np.concatenate([chosen[first], moves[second][:, None]], 1)
    raise AssertionError("the last group returns")


def cheapest(gains: Gains, costs: Mapping[str, int], gain: float) -> tuple[RankPattern, bool]:
    """The pattern of fewest parameters with at least `gain`, by bisection over the budget.

    Returns:
        The pattern (full rank where no smaller one reaches the gain), and whether it is proven cheapest.
    """
    low, high, exact = 0, sum((len(curve) - 1) * costs[name] for name, curve in gains.items()), True
    pattern = RankPattern({name: len(curve) - 1 for name, curve in gains.items()})
    while low < high:
        tried, proven = best_at(gains, costs, (low + high) // 2)
        exact = exact and proven
        if sum(float(gains[name][rank]) for name, rank in tried.items()) >= gain:
            pattern, high = tried, sum(costs[name] * rank for name, rank in tried.items())
        else:
            low = (low + high) // 2 + 1
    return pattern, exact


def _linear(costs: Sequence[int], steps: Sequence[Floats], budget: int) -> tuple[list[int], float]:
    """The number of components of each group before the first that does not fit, and that one's gain per parameter."""
    group = np.repeat(np.arange(len(costs)), [len(own) for own in steps])
    cost = np.asarray(costs, np.int64)[group]
    ratio = np.concatenate(steps) / cost
    order = np.lexsort((group, -ratio))
    order = order[ratio[order] > 0]  # components without gain are never taken
    over = np.flatnonzero(np.cumsum(cost[order]) > budget)
    stop = int(over[0]) if len(over) else len(order)
    price = float(ratio[order[stop]]) if len(over) else 0.0
    taken = np.bincount(group[order[:stop]], minlength=len(costs))
    return [int(count) for count in taken], price


def _moves(reduced: Floats, count: int, gap: float) -> tuple[NDArray[np.int64], Floats]:
    """Counts around `count` whose loss is below `gap`, and their losses; consecutive, since losses are convex."""
    up = np.cumsum(np.maximum(-reduced[count:], 0.0))
    down = np.cumsum(np.maximum(reduced[:count][::-1], 0.0))
    more, fewer = int(np.searchsorted(up, gap)), int(np.searchsorted(down, gap))
    losses = np.concatenate([down[:fewer][::-1], [0.0], up[:more]])
    return np.arange(count - fewer, count + more + 1), losses


def _pattern(gains: Gains, groups: Sequence[Group], counts: Sequence[int]) -> RankPattern:
    ranks = dict.fromkeys(gains, 0)
    for group, count in zip(groups, counts, strict=True):
        for name in group.layers[: int(count)]:
            ranks[name] += 1
    return RankPattern(ranks)
