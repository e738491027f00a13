"""Means over seeds, the best configuration on the search split, and paired comparisons with the control."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from rankopt.analysis.frame import CONTROL
from rankopt.analysis.statistics import SAME, Difference, holm, paired, summarize

CONDITION = ["setting", "budget"]
"""Trials that agree in these columns have the same task and budget, and may be compared."""


def average(points: pd.DataFrame) -> pd.DataFrame:
    """The mean over seeds of every configuration, at the trials' own patterns.

    An allocator may have several configurations at one setting and budget (learning rates, a search's proposals). Of
    those with the most seeds, the one with the best mean search score is `chosen`. Report scores are not used.

    Args:
        points: from `tidy`.
    Returns:
        One row per configuration: `setting`, `task`, `metric`, `split`, `allocator`, `name`, `budget`, `configuration`,
        `key` (of the first seed), `n` (seeds), `kept`, `mean_rank`, `search`, `score` (means), `error` (standard error
        of the score), `chosen`.
    """
    rows: list[dict[str, Any]] = []
    groups = points[points["own"].astype(bool)].groupby(
        ["setting", "allocator", "budget", "configuration"], dropna=False, sort=True
    )
    for (setting, allocator, budget, configuration), group in groups:
        summary = summarize(group["score"].tolist())
        first = group.iloc[0]
        rows.append(
            {
                "setting": setting,
                **{column: first[column] for column in ("task", "metric", "split")},
                "allocator": allocator,
                "name": first["name"],
                "budget": budget,
                "configuration": configuration,
                "key": group.sort_values("seed")["key"].iloc[0],
                "n": summary.n,
                "kept": group["kept"].mean(),
                "mean_rank": group["mean_rank"].mean(),
                "search": group["search"].mean(),
                "score": summary.mean,
                "error": summary.error,
                "chosen": False,
            }
        )
    averages = pd.DataFrame(rows, columns=AVERAGES)
    for _, group in averages.groupby(["setting", "allocator", "budget"], dropna=False):
        best = group.sort_values(["n", "search", "configuration"], ascending=[False, False, True]).index[0]
        averages.loc[best, "chosen"] = True
    return averages


AVERAGES = [
    "setting", "task", "metric", "split", "allocator", "name", "budget", "configuration", "key", "n", "kept",
    "mean_rank", "search", "score", "error", "chosen",
]  # fmt: skip


def compare(points: pd.DataFrame, averages: pd.DataFrame, control: str = CONTROL, alpha: float = 0.05) -> pd.DataFrame:
    """Paired differences between each chosen configuration and the control, at equal setting, budget and seed.

    Args:
        points: from `tidy`.
        averages: from `average`.
        control: the allocator to compare with.
        alpha: two-sided family-wise error rate after Holm's correction; the family is every row with a p-value.
    Returns:
        One row per setting, budget and allocator other than the control, where both have a trial: `n` shared seeds,
        `score` and `control` (means over the shared seeds), `difference`, `low`, `high` (95 % t-interval), `p`,
        `p_holm`, `detectable` (smallest true difference that n seeds detect with 80 % power), `verdict`, and the
        first `key` and `control_key`.
    """
    chosen = averages[averages["chosen"].astype(bool)]
    own = points[points["own"].astype(bool)]
    seeds = {key: group.set_index("seed")["score"] for key, group in own.groupby("configuration")}
    rows: list[dict[str, Any]] = []
    for (setting, budget), group in chosen[chosen["budget"].notna()].groupby(CONDITION):
        reference = group[group["name"] == control]
        if reference.empty:
            continue
        control_row = reference.iloc[0]
        base = seeds[control_row["configuration"]]
        for row in group[group["name"] != control].itertuples():
            pairs = pd.concat([seeds[row.configuration], base], axis=1, join="inner", keys=["score", "control"])
            found = paired((pairs["score"] - pairs["control"]).tolist(), level=1 - alpha)
            means = pairs.mean()
            rows.append(
                {
                    "setting": setting,
                    "budget": budget,
                    "allocator": row.allocator,
                    "n": found.n,
                    "score": means["score"],
                    "control": means["control"],
                    "difference": found.mean,
                    "key": row.key,
                    "control_key": control_row["key"],
                    **found._asdict(),
                }
            )
    adjusted = holm([row["p"] for row in rows])
    for row, p_holm in zip(rows, adjusted, strict=True):
        found = Difference(**{field: row[field] for field in Difference._fields})
        row |= {"p_holm": p_holm, "verdict": verdict(found, p_holm, alpha)}
    return pd.DataFrame(rows, columns=COMPARISONS)


COMPARISONS = [
    "setting", "budget", "allocator", "n", "score", "control", "difference", "low", "high", "p", "p_holm",
    "detectable", "verdict", "key", "control_key",
]  # fmt: skip


def verdict(found: Difference, p_holm: float, alpha: float = 0.05) -> str:
    """The conclusion of a paired comparison.

    "below detectable" is a mean difference smaller than `detectable`; "not significant" is a larger one whose
    p-value exceeds alpha after Holm's correction.

    Example:
        >>> verdict(Difference(1, 0.02, math.nan, math.nan, math.nan, math.nan), math.nan)
        'one seed'
        >>> verdict(Difference(5, 0.02, 0.01, 0.03, 0.004, 0.012), 0.012)
        'better'
    """
    if found.n == 0:
        return "no shared seed"
    if found.n == 1:
        return "one seed"
    if math.isnan(p_holm):
        return "equal at every seed" if abs(found.mean) < SAME else "same difference at every seed"
    if p_holm < alpha:
        return "better" if found.mean > 0 else "worse"
    return "below detectable" if abs(found.mean) < found.detectable else "not significant"
