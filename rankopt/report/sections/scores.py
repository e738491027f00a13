"""The scores behind the curves."""

from __future__ import annotations

import pandas as pd

from rankopt.analysis.averages import GROUP
from rankopt.report.base import Block, Section, Table
from rankopt.report.evidence import Evidence

AVERAGES = {
    "setting": "task", "allocator": "allocator", "budget": "mean rank asked", "mean_rank": "mean rank kept",
    "kept": "parameters kept", "n": "seeds", "score": "report score", "error": "standard error",
    "search": "search score",
}  # fmt: skip
POINTS = {
    "setting": "task", "allocator": "allocator", "budget": "mean rank asked", "seed": "seed", "point": "point",
    "mean_rank": "mean rank kept", "kept": "parameters kept", "score": "report score", "search": "search score",
    "key": "key",
}  # fmt: skip
FORMATS = {
    "mean rank asked": "g", "mean rank kept": ".2f", "parameters kept": ",.0f", "report score": ".3f",
    "standard error": ".3f", "search score": ".3f",
}  # fmt: skip
RETAINED = {"retained_before", "retained_after"}
LONG = 40


class Scores(Section):
    """Which scores were measured?"""

    def block(self, evidence: Evidence) -> Block | None:
        if not evidence.settings:
            return None
        metrics = "; ".join(f"{setting}: {evidence.metric(setting)}" for setting in evidence.settings)
        text = (
            f"Report score: the task's primary metric on the report split, mean over seeds ({metrics}). Search score: "
            "the same metric on the search split, by which configurations are chosen. data.csv has all metrics.",
        )
        averages = evidence.averages
        tables = [_averages(evidence, averages, "Means over seeds")]
        if not averages["chosen"].all() or not evidence.study.listed:
            best = pd.concat([evidence.front(setting) for setting in evidence.settings])
            tables.insert(0, _averages(evidence, best, "Pareto front, chosen on the search split"))
        points = evidence.points[list(POINTS)].rename(columns=POINTS)
        return Block("Scores", text=text, tables=(*tables, Table(points, FORMATS, "Every point", long=True)))


def _retained(evidence: Evidence, rows: pd.DataFrame) -> dict[str, list[str]]:
    """One column: the mean score on other material before training and after it."""
    own = evidence.points[evidence.points["own"].astype(bool)]
    names = own["retained_task"].dropna().unique()
    means = own.groupby(GROUP, dropna=False)[sorted(RETAINED)].mean().reset_index()
    found = rows[GROUP].merge(means, on=GROUP, how="left")
    pairs = zip(found["retained_before"], found["retained_after"], strict=True)
    shown = ["" if pd.isna(after) else f"{before:.4g} → {after:.4g}" for before, after in pairs]
    return {f"{' or '.join(names)}, before → after": shown}


def _averages(evidence: Evidence, rows: pd.DataFrame, title: str) -> Table:
    frame = rows[list(AVERAGES)].rename(columns=AVERAGES)
    if set(evidence.points) >= RETAINED:
        frame = frame.assign(**_retained(evidence, rows))
    words = [evidence.words(row) for _, row in rows.iterrows()]
    if any(words):
        frame.insert(2, "configuration", words)
        frame["key"] = rows["key"]
    return Table(frame, FORMATS, title, long=len(rows) > LONG)
