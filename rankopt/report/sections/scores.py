"""The scores behind the curves."""

from __future__ import annotations

import pandas as pd

from rankopt.analysis.pareto import front
from rankopt.report.block import Block, Section, Table
from rankopt.report.evidence import Evidence

AVERAGES = {
    "setting": "task", "allocator": "allocator", "budget": "mean rank asked", "mean_rank": "mean rank kept",
    "kept": "parameters kept", "n": "seeds", "score": "score", "error": "standard error", "search": "search score",
}  # fmt: skip
POINTS = {
    "setting": "task", "allocator": "allocator", "budget": "mean rank asked", "seed": "seed", "point": "point",
    "mean_rank": "mean rank kept", "kept": "parameters kept", "score": "score", "search": "search score", "key": "key",
}  # fmt: skip
FORMATS = {
    "mean rank asked": "g", "mean rank kept": ".2f", "parameters kept": ",.0f", "score": ".3f",
    "standard error": ".3f", "search score": ".3f",
}  # fmt: skip
LONG = 40


class Scores(Section):
    """Which numbers were measured?"""

    def block(self, evidence: Evidence) -> Block | None:
        if not evidence.settings:
            return None
        text = (
            "Score: the task's primary metric on the reported split, mean over seeds. Search score: the same metric on "
            "the split that a search may look at. All metrics and columns are in data.csv.",
        )
        averages = evidence.averages
        tables = [_averages(averages, "Means over seeds")]
        if not averages["chosen"].all():
            best = [
                rows.iloc[front(rows["kept"].tolist(), rows["search"].tolist())]
                for _, rows in averages.groupby("setting", sort=True)
            ]
            tables.insert(0, _averages(pd.concat(best), "Pareto front, chosen on the search split"))
        points = evidence.points[list(POINTS)].rename(columns=POINTS)
        return Block("Scores", text=text, tables=(*tables, Table(points, FORMATS, "Every point", long=True)))


def _averages(rows: pd.DataFrame, title: str) -> Table:
    return Table(rows[list(AVERAGES)].rename(columns=AVERAGES), FORMATS, title, long=len(rows) > LONG)
