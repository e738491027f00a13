"""The scores behind the curves."""

from __future__ import annotations

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
        averages = evidence.averages[list(AVERAGES)].rename(columns=AVERAGES)
        points = evidence.points[list(POINTS)].rename(columns=POINTS)
        text = (
            "Score: the task's primary metric on the reported split, mean over seeds. Search score: the same metric on "
            "the split that a search may look at. All metrics and columns are in data.csv.",
        )
        return Block(
            "Scores",
            text=text,
            tables=(
                Table(averages, FORMATS, "Means over seeds", long=len(averages) > LONG),
                Table(points, FORMATS, "Every point", long=True),
            ),
        )
