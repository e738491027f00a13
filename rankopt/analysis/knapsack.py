"""Ranks by knapsack: the exact maximum of total gain within a parameter budget, for all budgets at once."""

from __future__ import annotations

import heapq
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rankopt.core.pattern import RankPattern

Floats = NDArray[np.float64]
Gains = Mapping[str, Sequence[float] | Floats]
"""Layer -> gain curve: entry r is the layer's gain at rank r, r = 0 .. R."""

CELLS = 1 << 26
"""The largest table (groups x capacity), in entries."""

ROUNDING = 1e-13
"""Gains that differ by less are equal, relative to the largest one."""

FEW = 16
"""Concave groups of at most this many components are solved by trying every count, which is as fast."""


class TableTooLargeError(ValueError):
    """The costs' greatest common divisor is too small for a table; see `knapsack_core`."""


class Group(NamedTuple):
    """Layers that form one item of the knapsack: one layer, or all concave layers of one cost.

    Attributes:
        cost: units per component.
        gains: the total gain of the group's best k components, k = 0 .. K.
        layers: the layer of every component, best first.
    """

    cost: int
    gains: Floats
    layers: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Front:
    """The largest gain at every capacity, and the patterns that reach it.

    Attributes:
        unit: parameters per unit of capacity, the greatest common divisor of all costs.
        best: (capacity + 1,) the largest gain for at most that many units; never falls.
        groups: the items of the knapsack.
        taken: per group, (capacity + 1,) the number of its components in the best choice among the groups so far.
        layers: all layers, including those without a component.
    """

    unit: int
    best: Floats
    groups: tuple[Group, ...]
    taken: tuple[NDArray[Any], ...]
    layers: tuple[str, ...]

    def at(self, budget: int) -> RankPattern:
        """The pattern of largest gain within `budget` parameters; of equal gains (to rounding) the cheapest pattern."""
        return self.cheapest(float(self.best[min(max(budget, 0) // self.unit, len(self.best) - 1)]))

    def cheapest(self, gain: float) -> RankPattern:
        """The cheapest pattern whose gain is at least `gain` (to rounding), else the one of largest gain."""
        least = min(gain, float(self.best[-1])) - self._rounding
        return self._pattern(int(np.searchsorted(self.best, least)))

    def points(self) -> Iterator[tuple[int, float]]:
        """(parameters, gain) of every point of the Pareto front, parameters rising."""
        jumps = np.flatnonzero(np.diff(self.best, prepend=-math.inf) > self._rounding)
        return ((int(capacity) * self.unit, float(self.best[capacity])) for capacity in jumps)

    @property
    def _rounding(self) -> float:
        return ROUNDING * float(np.abs(self.best).max())

    def _pattern(self, capacity: int) -> RankPattern:
        ranks = dict.fromkeys(self.layers, 0)
        for group, taken in zip(reversed(self.groups), reversed(self.taken), strict=True):
            count = int(taken[capacity])
            for name in group.layers[:count]:
                ranks[name] += 1
            capacity -= count * group.cost
        return RankPattern(ranks)


def knapsack(gains: Gains, costs: Mapping[str, int], capacity: int | None = None, cells: int = CELLS) -> Front:
    """The Pareto front of gain against parameters, by dynamic programming.

        best_j(w) = max_k  g_j(k) + best_{j-1}(w - k c_j)          w in units of gcd(c_1, c_2, ...)

    With n units of capacity a layer of R ranks takes O(n R) time. Layers of equal cost with concave curves (every
    spectrum's is) form one group: the best k components of several sorted lists are the first k of the merged list. A
    concave group takes O(n log n) time whatever its size, because its best k rises with w. 72 layers of 17 ranks take
    milliseconds, a model of 8 B parameters at rank 64 (three costs) under a second. Memory: n entries per group.

    Args:
        gains: of every layer at rank 0, 1, ..., R; any finite numbers.
        costs: parameters per component of every layer.
        capacity: the largest budget that will be asked for, in parameters; full rank everywhere when absent.
        cells: the largest table, in entries.
    Raises:
        ValueError: a gain is not finite, a curve is empty, or a cost is below 1.
        TableTooLargeError: the table would have more than `cells` entries.
    Example:
        >>> front = knapsack({"q": [0, 4, 5], "ffn": [0, 7, 8]}, {"q": 8, "ffn": 20})
        >>> front.at(20), front.at(28)
        (RankPattern({'ffn': 1, 'q': 0}), RankPattern({'ffn': 1, 'q': 1}))
        >>> list(front.points())[:3]
        [(0, 0.0), (8, 4.0), (16, 5.0)]

    Source: Bellman 1957 (the knapsack recursion); Aggarwal et al. 1987 (monotone maxima, for the concave step).
    """
    curves = {name: _curve(name, gains[name], costs[name]) for name in sorted(gains)}
    unit = math.gcd(*costs.values()) or 1
    groups = tuple(_groups(curves, {name: costs[name] // unit for name in curves}))
    full = sum((len(curve) - 1) * costs[name] // unit for name, curve in curves.items())
    size = min(full, full if capacity is None else max(capacity, 0) // unit) + 1
    if size * max(1, len(groups)) > cells:
        raise TableTooLargeError(
            f"the knapsack's table must have at most {cells:,} entries, got {len(groups)} groups of layers x {size:,} "
            f"units of {unit} parameters; give a smaller capacity"
        )
    best, taken = np.zeros(size), []
    for group in groups:
        step = _concave_step if _concave(group.gains) and len(group.layers) > FEW else _step
        best, choice = step(best, group.gains, group.cost)
        taken.append(choice)
    return Front(unit, best, groups, tuple(taken), tuple(curves))


def concave_groups(gains: Gains, costs: Mapping[str, int]) -> list[Group]:
    """Layers with concave curves, merged by cost.

    Raises:
        ValueError: a curve is not concave.
    """
    curves = {name: _curve(name, gains[name], costs[name]) for name in sorted(gains)}
    for name, curve in curves.items():
        if not _concave(curve):
            raise ValueError(f"a gain curve must be concave here, got {curve.tolist()} for layer {name!r}")
    return list(_groups(curves, costs))


def greedy(gains: Gains, costs: Mapping[str, int], budget: int) -> RankPattern:
    """Repeatedly take the component of largest gain per parameter that fits; ties by name.

    For concave curves the total gain is within one component's gain of the optimum. O(N log L) for N components in L
    layers.

    Example:
        >>> greedy({"q": [0, 4, 5], "ffn": [0, 7, 8]}, {"q": 8, "ffn": 20}, 20)
        RankPattern({'ffn': 0, 'q': 2})
    """
    ranks = dict.fromkeys(gains, 0)

    def entry(name: str) -> tuple[float, str]:
        curve, rank = gains[name], ranks[name]
        return (curve[rank] - curve[rank + 1]) / costs[name], name

    queue = [entry(name) for name in gains if len(gains[name]) > 1]
    heapq.heapify(queue)
    while queue:
        loss, name = heapq.heappop(queue)
        if loss < 0 and costs[name] <= budget:
            budget -= costs[name]
            ranks[name] += 1
            if ranks[name] + 1 < len(gains[name]):
                heapq.heappush(queue, entry(name))
    return RankPattern(ranks)


def _curve(name: str, gains: Sequence[float] | Floats, cost: int) -> Floats:
    curve = np.asarray(gains, dtype=np.float64)
    if curve.ndim != 1 or not len(curve) or not np.isfinite(curve).all():
        raise ValueError(f"a gain curve must be finite numbers for rank 0, 1, ..., got {gains!r} for layer {name!r}")
    if cost < 1:
        raise ValueError(f"a component must cost at least 1 parameter, got {cost} for layer {name!r}")
    return curve


def _concave(curve: Floats) -> bool:
    """Whether a curve is concave, up to the rounding of a cumulative sum."""
    return bool((np.diff(curve, 2) <= ROUNDING * np.abs(curve).max()).all())


def _groups(curves: Mapping[str, Floats], costs: Mapping[str, int]) -> Iterator[Group]:
    merged: dict[int, list[str]] = defaultdict(list)
    for name, curve in curves.items():
        if _concave(curve):
            merged[costs[name]].append(name)
        else:
            yield Group(costs[name], curve, (name,) * (len(curve) - 1))
    for cost, names in merged.items():
        steps = np.concatenate([np.diff(curves[name]) for name in names])
        owners = [name for name in names for _ in range(len(curves[name]) - 1)]
        order = np.argsort(-steps, kind="stable")
        start = sum(curves[name][0] for name in names)
        yield Group(
            cost, start + np.concatenate([[0.0], np.cumsum(steps[order])]), tuple(owners[index] for index in order)
        )


def _step(best: Floats, gains: Floats, cost: int) -> tuple[Floats, NDArray[Any]]:
    """Add one group to the table by trying every count."""
    new, taken = best + gains[0], np.zeros(len(best), np.min_scalar_type(len(gains)))
    for count in range(1, min(len(gains) - 1, (len(best) - 1) // cost) + 1):
        value = best[: len(best) - count * cost] + gains[count]
        tail = new[count * cost :]
        better = value > tail
        tail[better] = value[better]
        taken[count * cost :][better] = count
    return new, taken


def _concave_step(best: Floats, gains: Floats, cost: int) -> tuple[Floats, NDArray[Any]]:
    """Add one group of concave gains to the table by divide and conquer.

    The capacity left to the previous groups rises with w, so the best row lies between those of the neighbours
    already solved: first every other row, then every other of the rest, all residues of w modulo the cost at once.
    """
    rows = -(-len(best) // cost)
    left = np.concatenate([best, np.full(rows * cost - len(best), best[-1])]).reshape(rows, cost)
    row_left = np.zeros((rows, cost), np.int64)  # for every row, the best row of `left`
    value = left + gains[0]
    stride = 1 << max(rows - 1, 0).bit_length()
    while stride := stride // 2:
        own = np.arange(stride, rows, 2 * stride)
        low = np.maximum(row_left[own - stride], own[:, None] - (len(gains) - 1))
        after = np.minimum(own + stride, rows - 1)
        high = np.where((own + stride < rows)[:, None], row_left[after], own[:, None])
        high = np.minimum(high, own[:, None])
        length = (high - low + 1).ravel()
        start = np.cumsum(length) - length
        row = np.arange(length.sum()) - np.repeat(start - low.ravel(), length)
        column = np.repeat(np.tile(np.arange(cost), len(own)), length)
        tried = left[row, column] + gains[np.repeat(np.repeat(own, cost), length) - row]
        top = np.maximum.reduceat(tried, start)
        # of equal choices, the one with the fewest components
        found = np.maximum.reduceat(np.where(tried == np.repeat(top, length), row, -1), start)
        row_left[own], value[own] = found.reshape(-1, cost), top.reshape(-1, cost)
    taken = np.arange(rows)[:, None] - row_left
    return value.ravel()[: len(best)], taken.ravel()[: len(best)].astype(np.int32)
