"""Scores of an allocator's best configuration, at other seeds than those by which it was chosen."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd


@dataclass(frozen=True)
class Selected:
    """What an allocator reached at one setting and budget.

    Attributes:
        scores: seed -> report score.
        kept: seed -> parameters kept.
        keys: seed -> key of the trial.
        configurations: how many were compared.
        collapsed: whether one of these trainings predicts the same for every example, see `frame.collapsed`.
        unbiased: whether the choice used other seeds than `scores` has, or there was nothing to choose.
    """

    scores: dict[int, float]
    kept: dict[int, float]
    keys: dict[int, str]
    configurations: int
    collapsed: bool
    unbiased: bool


def select(own: pd.DataFrame) -> Selected:
    """The scores of the best configuration, chosen by the search scores of the first half of the seeds.

        c = argmax_c mean over the first n // 2 seeds of gain[c, s],    scores: report[c, s] of the other seeds

    The gain is the search score, negated where lower is better. A lucky seed has a high search score and a high report
    score, so the best of n configurations looks better than it is at the seeds by which it was chosen. Only
    configurations with the largest number of seeds are compared.

    Args:
        own: rows of `frame.tidy` of one setting, budget and allocator: own points only.
    Returns:
        All seeds of a single configuration. Where there are several and fewer than two seeds are common to them, the
        best one over all its seeds, not `unbiased`.
    Example:
        >>> rows = [("a", 0, .5, .5), ("a", 1, .9, .9), ("b", 0, .6, .6), ("b", 1, .7, .7)]
        >>> own = pd.DataFrame(rows, columns=["configuration", "seed", "gain", "score"])
        >>> select(own.assign(kept=8, collapsed=False, key="")).scores
        {1: 0.7}
    """
    columns = ("configuration", "seed", "gain", "score", "kept", "collapsed", "key")
    found: dict[str, dict[int, tuple[float, float, float, bool, str]]] = {}
    for configuration, seed, *values in zip(*(own[column].tolist() for column in columns), strict=True):
        found.setdefault(configuration, {})[int(seed)] = (*values[:3], bool(values[3]), values[4])
    most = max(map(len, found.values()))
    rivals = {name: rows for name, rows in sorted(found.items()) if len(rows) == most}
    shared = sorted(set.intersection(*(set(rows) for rows in rivals.values())))
    unbiased = len(rivals) == 1 or len(shared) > 1
    choosing = shared[: len(shared) // 2] if len(rivals) > 1 and unbiased else []

    def searched(name: str) -> float:
        return sum(row[0] for seed, row in rivals[name].items() if not choosing or seed in choosing)

    chosen = {seed: row for seed, row in sorted(rivals[max(rivals, key=searched)].items()) if seed not in choosing}
    return Selected(
        {seed: row[1] for seed, row in chosen.items()},
        {seed: row[2] for seed, row in chosen.items()},
        {seed: row[4] for seed, row in chosen.items()},
        len(found),
        any(row[3] for row in chosen.values()),
        unbiased,
    )
