"""Means over seeds, and the best configuration on the search split."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

GROUP = ["setting", "allocator", "budget", "configuration"]


def average(points: pd.DataFrame) -> pd.DataFrame:
    """The mean over seeds of every configuration, at the trials' own patterns.

    An allocator may have several configurations at one setting and budget (learning rates, a search's proposals). Of
    those with the most seeds, the one with the best mean search score is `chosen`. Report scores are not used.

    Args:
        points: from `tidy`.
    Returns:
        One row per configuration: `setting`, `task`, `metric`, `split`, `allocator`, `name`, `budget`, `configuration`,
        `key` (of the first seed), `n` (seeds), `kept`, `mean_rank`, `search`, `score`, `gain` (means), `sign` (see
        `tidy`), `error` (standard error of the score), `collapsed` (number of such trainings), `train_seconds` (mean),
        `chosen`.
    """
    own = points[points["own"].astype(bool)].sort_values([*GROUP, "seed"], kind="stable")
    if own.empty:
        return pd.DataFrame(columns=AVERAGES)
    named: dict[str, Any] = {column: (column, "first") for column in ("task", "metric", "split", "name", "key", "sign")}
    means = {column: (column, "mean") for column in ("kept", "mean_rank", "search", "gain", "score", "train_seconds")}
    averages = (
        own.assign(collapsed=own["collapsed"].astype(int), train_seconds=own["train_seconds"].astype(float))
        .groupby(GROUP, dropna=False, sort=True)
        .agg(**named, **means, n=("score", "size"), sd=("score", "std"), collapsed=("collapsed", "sum"))
        .reset_index()
    )
    averages["error"] = averages["sd"] / averages["n"].map(math.sqrt)
    ordered = averages.sort_values(["n", "gain", "configuration"], ascending=[False, False, True])
    best = ordered.drop_duplicates(["setting", "allocator", "budget"]).index
    averages["chosen"] = averages.index.isin(best)
    return averages[AVERAGES]


AVERAGES = [
    "setting", "task", "metric", "split", "allocator", "name", "budget", "configuration", "key", "n", "kept",
    "mean_rank", "search", "sign", "gain", "score", "error", "collapsed", "train_seconds", "chosen",
]  # fmt: skip
