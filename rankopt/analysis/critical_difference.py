"""Mean ranks of allocators over tasks, and which of them differ: Friedman's test, then Nemenyi's."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

LEAST = 3
"""Fewest allocators, and fewest tasks, of a critical difference."""


class Ranking(NamedTuple):
    """Mean ranks (1 is best), Friedman's p-value, Nemenyi's critical difference, and the groups that do not differ."""

    ranks: dict[str, float]
    p: float
    difference: float
    groups: list[list[str]]


def critical_difference(scores: Mapping[str, Sequence[float]], alpha: float = 0.05) -> Ranking | None:
    """Rank allocators on every task, and compare their mean ranks.

        CD = q(alpha, k) sqrt(k (k + 1) / (6 N)),    q: studentized range over sqrt(2), k allocators, N tasks

    Two allocators differ if their mean ranks do by at least CD, provided that Friedman's test rejects equality of all.

    Args:
        scores: allocator -> one score per task, higher is better, in the same order of tasks.
        alpha: family-wise error rate.
    Returns:
        `ranks` with the best first; `groups` of at least two allocators, each as large as possible. None with fewer
        than three allocators or tasks.

    Source: Demšar 2006, Statistical comparisons of classifiers over multiple data sets, section 3.2.2.
    """
    names, table = list(scores), np.array(list(scores.values()), float)
    if min(table.shape) < LEAST:
        return None
    from scipy import stats  # takes half a second to import, and most studies have fewer tasks

    k, n = table.shape
    mean = dict(zip(names, stats.rankdata(-table, axis=0).mean(1).tolist(), strict=True))
    ranks = dict(sorted(mean.items(), key=lambda item: (item[1], item[0])))
    p = float(stats.friedmanchisquare(*table).pvalue) if np.ptp(table, axis=0).any() else 1.0
    cd = float(stats.studentized_range.isf(alpha, k, np.inf)) / math.sqrt(2) * math.sqrt(k * (k + 1) / (6 * n))
    return Ranking(ranks, p, cd, _groups(ranks, cd if p <= alpha else math.inf))


def _groups(ranks: Mapping[str, float], difference: float) -> list[list[str]]:
    """The largest runs of neighbours whose ranks span less than the difference."""
    names = list(ranks)
    found: list[list[str]] = []
    for start, first in enumerate(names):
        group = [name for name in names[start:] if ranks[name] - ranks[first] < difference]
        if len(group) > 1 and not (found and set(group) <= set(found[-1])):
            found.append(group)
    return found
