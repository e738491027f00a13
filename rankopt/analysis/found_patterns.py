"""Patterns that adaptive allocators found, trained again from scratch, against the trainings that found them."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from rankopt.analysis.comparison import ARMS, compare
from rankopt.analysis.example_errors import Predictions
from rankopt.core.result import TrialResult

ERROR = 0.05
"""Probability of any wrong verdict, over all finders."""


def found_patterns(
    results: Iterable[TrialResult], points: pd.DataFrame, averages: pd.DataFrame,
    predictions: Predictions = lambda key: None,
) -> pd.DataFrame:  # fmt: skip
    """Paired differences between found patterns and their finders, at equal task, budget and seed.

    Every finder is the control of a comparison of its own (see `compare`), at `ERROR` divided by the number of finders.

    Args:
        results: the complete ones.
        points: from `frame.tidy`.
        averages: from `averages.average`.
        predictions: of trials, for intervals over examples.
    Returns:
        `finder` and the columns of `Comparison.arms`; `p_holm` is multiplied by the number of finders, at most 1.
    Source: Holm 1979 within a finder, Bonferroni over finders.
    """
    labels = dict(zip(points["name"], points["allocator"], strict=True))
    origins = {result.key: (result.spec.get("allocator") or {}).get("found") for result in results}
    finders = {
        label: labels[origin]
        for label, key in zip(points["allocator"], points["key"], strict=True)
        if (origin := origins.get(key)) in labels
    }
    tables = [pd.DataFrame(columns=["finder", *ARMS])]
    for label, finder in finders.items():
        own, means = (frame[frame["allocator"].isin([label, finder])] for frame in (points, averages))
        arms = compare(own, means, finder, ERROR / len(finders), predictions).arms
        p = (arms["p_holm"] * len(finders)).clip(upper=1.0)
        tables.append(arms.assign(finder=finder, p_holm=p)[["finder", *ARMS]])
    return pd.concat([table for table in tables if len(table)] or tables, ignore_index=True)
