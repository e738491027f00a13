"""Sentences on arms that score no better than a prediction that needs no model."""

from __future__ import annotations

import pandas as pd

from rankopt.report.conclusion import Sentence
from rankopt.report.evidence import Evidence
from rankopt.report.formatting import joined

NEAR = 1e-9
"""Scores closer than this are equal: the two are computed in different orders of summation."""


def none_above(evidence: Evidence) -> tuple[Sentence, ...]:
    """A sentence for every setting in which no arm beats the constant prediction; it comes before all others."""
    found = []
    for setting in evidence.settings:
        rows = evidence.chosen[evidence.chosen["setting"] == setting]
        if len(rows) and len(below(evidence, setting)) == len(rows):
            name, score = _baseline(evidence, setting) or ("", 0.0)
            sign = rows["sign"].iloc[0]
            best = sign * (sign * rows["score"]).max()
            where = f"{setting}: no" if len(evidence.settings) > 1 else "No"
            brief = f"{where} arm beats {name} ({score:.3f}); the best scores {best:.3f}."
            text = f"{brief} A model that has not learned cannot tell allocators or ranks apart: train longer."
            found.append(Sentence(text, brief, "How sure"))
    return tuple(found)


def some_below(evidence: Evidence) -> tuple[str, ...]:
    """A remark for every setting in which some arms, but not all, are no better than the constant prediction."""
    found = []
    for setting in evidence.settings:
        rows = below(evidence, setting)
        if 0 < len(rows) < (evidence.chosen["setting"] == setting).sum():
            name, score = _baseline(evidence, setting) or ("", 0.0)
            arms = [
                f"{row.allocator} ({row.score:.3f})"
                if pd.isna(row.budget)
                else f"{row.allocator} at mean rank {row.budget:g} ({row.score:.3f})"
                for row in rows.itertuples()
            ]
            found.append(f"On {setting}, not better than {name} ({score:.3f}): {joined(arms)}.")
    return tuple(found)


def below(evidence: Evidence, setting: str) -> pd.DataFrame:
    """The chosen rows of a setting whose mean report score is not better than the constant prediction's."""
    rows = evidence.chosen[evidence.chosen["setting"] == setting]
    known = _baseline(evidence, setting)
    return rows[rows["sign"] * (rows["score"] - known[1]) <= NEAR] if known else rows[:0]


def _baseline(evidence: Evidence, setting: str) -> tuple[str, float] | None:
    """The name and the primary report score of the constant prediction; None in results of earlier versions."""
    for result in evidence.complete(setting):
        if result.baseline:
            return result.baseline.name, next(iter(result.baseline.report.values()))[result.metrics[0]]
    return None
