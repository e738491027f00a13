"""Active ranks over time."""

from __future__ import annotations

from synthetic_results import blocks, series

from rankopt.core.result import TrialResult
from rankopt.core.study_spec import StudySpec
from rankopt.report.evidence import Evidence


def test_traces_start_and_end_at_the_trials_totals(study: StudySpec, results: list[TrialResult]) -> None:
    """A falling trace ends at the final pattern; a constant one is drawn wider, below it."""
    evidence = Evidence.of(study, results, {})
    (chart,) = blocks(study, results)["budget"].charts
    lines = {one.label: one for one in series(chart, "step")}
    budget = evidence.typical_budget("mini-rte")
    first = evidence.runs("mini-rte", budget, "adalora").sort_values("seed").iloc[0]
    assert lines["adalora"].y[-1] == evidence.by_key[first["key"]].own.pattern.total
    assert lines["adalora"].x[-1] == 300
    assert lines["adalora"].y[0] > lines["adalora"].y[-1]
    assert lines["adalora"].width < lines["uniform"].width
