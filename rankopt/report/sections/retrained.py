"""Patterns that adaptive allocators found, trained again from scratch."""

from __future__ import annotations

import pandas as pd

from rankopt.analysis.comparison import compare
from rankopt.analysis.frame import CONTROL
from rankopt.report.base import Block, Section, Table
from rankopt.report.evidence import Evidence
from rankopt.report.formatting import joined

TITLE = "Found patterns, trained from scratch"
FORMATS = {"difference": "+z.3f", "low": "+z.3f", "high": "+z.3f", "p (Holm)": ".2g"}
ERROR = 0.05
"""Probability of any wrong verdict in the table."""


class Retrained(Section):
    """Is a pattern worth as much without the method that found it?"""

    def block(self, evidence: Evidence) -> Block | None:
        finders = _finders(evidence)
        alpha = ERROR / max(1, len(finders))
        tables = [_beside(evidence, found, finder, alpha) for found, finder in finders.items()]
        if not any(len(table) for table in tables):
            return None
        text = (
            f"The final patterns of {joined(finders.values())}, trained from scratch as fixed ranks at the same seed, "
            "minus the trainings that found them. Positive: the pattern scores better without its method. The "
            "probability of any wrong verdict in this table is at most 5% (Holm's and Bonferroni's corrections). How "
            f"these patterns compare with {CONTROL} ranks stands in the section before.",
        )
        frame = pd.concat(tables)
        return Block(
            TITLE, text=text, tables=(Table(frame if frame["task"].any() else frame.drop(columns="task"), FORMATS),)
        )


def _finders(evidence: Evidence) -> dict[str, str]:
    """Label of the retrained patterns -> label of the allocator that found them."""
    points = evidence.points
    by_name = dict(zip(points["name"], points["allocator"], strict=True))
    found = {}
    for label, key in zip(points["allocator"], points["key"], strict=True):
        finder = (evidence.by_key[key].spec.get("allocator") or {}).get("found")
        if finder in by_name:
            found[label] = by_name[finder]
    return found


def _beside(evidence: Evidence, found: str, finder: str, alpha: float) -> pd.DataFrame:
    both = [found, finder]
    points, averages = (frame[frame["allocator"].isin(both)] for frame in (evidence.points, evidence.averages))
    arms = compare(points, averages, finder, alpha, evidence.search.predictions).arms
    columns = {"scope": "task", "n": "seeds", "budgets": "budgets", "difference": "difference", "low": "low",
               "high": "high", "p_holm": "p (Holm)", "verdict": "verdict"}  # fmt: skip
    frame = arms[list(columns)].rename(columns=columns)
    frame.insert(1, "pattern of", finder)
    return frame
