"""What a search leaves beside its trials' results, and what it found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import pandas as pd

from rankopt.analysis.pareto import front


class Proposal(NamedTuple):
    """One proposal, in the order in which they were made: the keys of its trainings (one, unless the study repeats
    its trials), and what became of it."""

    keys: Sequence[str]
    fate: str


@dataclass(frozen=True)
class SearchRecord:
    """A search's history.

    Attributes:
        proposals: in order; the same one proposed again has the same keys.
        importances: what was asked for (see `study.importance`) -> dimension -> share, summing to 1; may be empty.
    """

    proposals: Sequence[Proposal] = ()
    importances: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


BEST = ["setting", "allocator", "n", "kept", "mean_rank", "search", "score", "key", "point"]


def best(points: pd.DataFrame, budget: int | None = None) -> pd.DataFrame:
    """The patterns worth having, chosen on the search split: of every setting the Pareto front, or one in a budget.

    Args:
        points: a frame of `tidy`.
        budget: adapter parameters kept at most; then the one with the best search score, the cheaper of equals.
    Returns:
        One row per configuration and point, means over seeds; `key` is the trial of the first seed.
    """
    found = []
    for _, rows in points.groupby("setting", sort=True):
        groups = rows.sort_values("seed").groupby(["configuration", "point"], sort=True, as_index=False)
        means = groups.agg(
            setting=("setting", "first"), allocator=("allocator", "first"), n=("seed", "size"), kept=("kept", "mean"),
            mean_rank=("mean_rank", "mean"), search=("search", "mean"), score=("score", "mean"), key=("key", "first"),
        )  # fmt: skip
        if budget is None:
            chosen = means.iloc[front(means["kept"].tolist(), means["search"].tolist())]
        else:
            affordable = means[means["kept"] <= budget]
            chosen = affordable.sort_values(["search", "kept", "key"], ascending=[False, True, True]).head(1)
        found.append(chosen[BEST])
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=BEST)
