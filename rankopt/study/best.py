"""The best patterns of a study, with the ranks of their layers."""

from __future__ import annotations

import pandas as pd

from rankopt.analysis.frame import tidy
from rankopt.analysis.search import best, configuration
from rankopt.core.study_spec import StudySpec
from rankopt.study.storage import StudyStore


def best_patterns(store: StudyStore, spec: StudySpec, budget: int | None) -> pd.DataFrame:
    """The best pattern of at most `budget` parameters, or the Pareto front without one; chosen on the search split.

    Args:
        store: of the study.
        spec: the study.
        budget: adapter parameters.
    Returns:
        A row per pattern: those of `analysis.search.best`, with the column `pattern`, a dict layer -> rank, and
        `configuration`, the values of the study's other dimensions, if it has any.
    Raises:
        ValueError: no complete trial is within the budget.
    """
    results = {result.key: result for result in store.results() if not spec.is_tuning(result.spec)}
    found = best(tidy(results.values(), pooled=store.search.trials is not None), budget)
    if found.empty:
        bound = f" within {budget:,} parameters" if budget is not None else ""
        raise ValueError(f"study {spec.name!r} has no complete trial{bound}")
    words = [configuration(spec, results[key].spec) for key in found["key"]]
    if any(words):
        found["configuration"] = words
    found["pattern"] = [
        dict(next(point.pattern for point in results[key].points if point.label == label))
        for key, label in zip(found["key"], found["point"], strict=True)
    ]
    return found.drop(columns="gain")  # the search score, higher is better
