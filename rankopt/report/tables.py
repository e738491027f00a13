"""Every number of a report as tables, for files."""

from __future__ import annotations

import json

import pandas as pd

from rankopt.analysis.frame import flatten
from rankopt.report.evidence import Evidence

LOCAL = ("task.data", "model.name")
"""Beginnings of fields that may hold a path of this machine; `model` and `setting` name what they stand for."""


def tables(evidence: Evidence) -> dict[str, pd.DataFrame]:
    """The tables behind a report.

    Returns:
        `data`: a row per point, see `frame.tidy`, with every field of the trial's spec (`spec:training.lr`) and the
        rank of every layer (`pattern`, as JSON). `averages`: a row per configuration. `comparisons`: a row per verdict,
        of the study (without `setting` and `budget`) and of every task and budget. `curves`: a row per curve, then one
        per point with its probability of being on the front, then one per allocator over all tasks.
    """
    arms, cells = evidence.comparison
    tasks = evidence.task_summaries
    return {
        "data": evidence.points.join(_specs(evidence)),
        "averages": evidence.averages,
        "curves": pd.concat([*evidence.curve_summaries, *([tasks.rows] if tasks else [])], ignore_index=True),
        "comparisons": pd.concat([table for table in (arms, cells) if len(table)] or [cells], ignore_index=True),
    }


def _specs(evidence: Evidence) -> pd.DataFrame:
    """Per row of the points: the fields of the spec that no other column has, and the pattern."""
    specs = {
        key: {
            f"spec:{path}": json.dumps(value) if isinstance(value, list) else value
            for path, value in flatten(result.spec).items()
            if not path.startswith(LOCAL)
        }
        for key, result in evidence.by_key.items()
    }
    patterns = {
        (result.key, point.label): json.dumps(dict(point.pattern))
        for result in evidence.results
        for point in result.points
    }
    rows = [
        specs[key] | {"pattern": patterns[key, point]}
        for key, point in zip(evidence.points["key"], evidence.points["point"], strict=True)
    ]
    return pd.DataFrame(rows, index=evidence.points.index)
