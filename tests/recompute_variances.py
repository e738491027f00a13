"""The variance of every allocator's differences to a control, estimated with those of the others; for `recompute.py`.

In plain loops, without rankopt's code: rankopt/analysis/moderation.py has the formulas and their source.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from scipy import stats
from scipy.special import polygamma, psi

Row = dict[str, Any]
Table = dict[int, dict[int, float]]
"""Number of an allocator, -1 for the control -> seed -> difference to the control."""


def variances(groups: list[list[Row]], together: Iterable[list[int]]) -> list[dict[str, tuple[float, float]]]:
    """For every group of cells: task -> variance of its differences and degrees of freedom.

    Args:
        groups: cells of one allocator each, see `recompute.cell`.
        together: numbers of the groups that are estimated together.
    """
    found: list[dict[str, tuple[float, float]]] = [{} for _ in groups]
    for members in together:
        tables: dict[str, Table] = defaultdict(dict)
        for number in members:
            if any(cell["collapsed"] for cell in groups[number]):
                continue
            for task in {cell["task"] for cell in groups[number]}:
                values = by_seed([cell for cell in groups[number] if cell["task"] == task])
                if len(values) > 1:
                    tables[task][number] = values
        for task, table in tables.items():
            for number, variance in of_table(table).items():
                found[number][task] = variance
    return found


def by_seed(cells: list[Row]) -> dict[int, float]:
    """Seed -> mean difference over the budgets."""
    seeds = {seed for cell in cells for seed in cell["by_seed"]["difference"]}
    return {
        seed: statistics.mean(c["by_seed"]["difference"][seed] for c in cells if seed in c["by_seed"]["difference"])
        for seed in seeds
    }


def of_table(table: Table) -> dict[int, tuple[float, float]]:
    """The variances at one task; none where nothing varies."""
    seeds = {seed for row in table.values() for seed in row}
    full: Table = {-1: dict.fromkeys(seeds, 0.0), **table}
    left = {k: {seed: value - statistics.mean(row.values()) for seed, value in row.items()} for k, row in full.items()}
    shared = {seed: statistics.mean(row[seed] for row in left.values() if seed in row) for seed in seeds}
    noise = {k: [value - shared[seed] for seed, value in row.items()] for k, row in left.items()}
    size = len(full)
    df = {k: len(row) - 1 for k, row in full.items()}
    raw = {k: size / (size - 1) * statistics.variance(row) for k, row in noise.items()}
    if max(raw.values()) <= 1e-24:
        return {}
    least = 1e-5 * statistics.median(raw.values())
    raw = {k: max(value, least) for k, value in raw.items()}
    logs = [math.log(raw[k]) - float(psi(df[k] / 2)) + math.log(df[k] / 2) for k in raw]
    upper = sum((one - statistics.mean(logs)) ** 2 for one in logs) / float(stats.chi2.ppf(0.05, size - 1))
    excess = upper - statistics.mean(float(polygamma(1, df[k] / 2)) for k in raw)
    if excess <= 1e-12:
        pooled = sum(df[k] * raw[k] for k in raw) / sum(df.values())
        final = dict.fromkeys(raw, (pooled, math.inf))
    else:
        prior = 2 * solved(excess)
        center = math.exp(statistics.mean(logs) + float(psi(prior / 2)) - math.log(prior / 2))
        final = {k: ((prior * center + df[k] * raw[k]) / (prior + df[k]), prior + df[k]) for k in raw}
    most = sum(df[k] for k in table)
    return {k: (final[k][0] + final[-1][0], min(final[k][1], most)) for k in table}


def solved(value: float) -> float:
    """Where the trigamma function has a value, by halving in the logarithm."""
    low, high = 1e-9, 1e12
    for _ in range(200):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if float(polygamma(1, middle)) > value else (low, middle)
    return math.sqrt(low * high)
