"""Patterns that adaptive allocators found, trained again from scratch."""

from __future__ import annotations

from rankopt.analysis.frame import CONTROL
from rankopt.report.base import Block, Section, Table
from rankopt.report.evidence import Evidence
from rankopt.report.formatting import joined

TITLE = "Found patterns, trained from scratch"
FORMATS = {"difference": "+z.3f", "low": "+z.3f", "high": "+z.3f", "p (corrected)": ".2g"}
COLUMNS = {
    "scope": "task", "finder": "pattern of", "n": "seeds", "budgets": "budgets", "difference": "difference",
    "low": "low", "high": "high", "p_holm": "p (corrected)", "verdict": "verdict",
}  # fmt: skip


class Retrained(Section):
    """Is a pattern worth as much without the method that found it?"""

    def block(self, evidence: Evidence) -> Block | None:
        rows = evidence.found_patterns
        if rows.empty:
            return None
        text = (
            f"The final patterns of {joined(dict.fromkeys(rows['finder']))}, trained from scratch as fixed ranks at "
            "the same seed, minus the trainings that found them. Positive: the pattern scores better without its "
            "method. The probability of any wrong verdict in this table is at most 5% (Holm's and Bonferroni's "
            "corrections). "
            f"How these patterns compare with {CONTROL} ranks stands in the section before.",
        )
        frame = rows[list(COLUMNS)].rename(columns=COLUMNS)
        frame = frame if frame["task"].any() else frame.drop(columns="task")
        return Block(TITLE, text=text, tables=(Table(frame, FORMATS),))
