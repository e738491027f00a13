"""The tables behind a report."""

from __future__ import annotations

import json

from rankopt.core.result import TrialResult
from rankopt.core.study_spec import StudySpec
from rankopt.report.evidence import Evidence
from rankopt.report.tables import tables


def test_every_hyper_parameter_and_pattern_is_in_the_data(study: StudySpec, results: list[TrialResult]) -> None:
    evidence = Evidence.of(study, results, {})
    data = tables(evidence)["data"]
    assert len(data) == len(evidence.points)
    for _, row in data.iterrows():
        result = evidence.by_key[row["key"]]
        assert row["spec:training.lr"] == result.spec["training"]["lr"]
        assert row["spec:budget.mean_rank"] == result.spec["budget"]["mean_rank"]
        point = next(point for point in result.points if point.label == row["point"])
        assert json.loads(row["pattern"]) == dict(point.pattern)


def test_every_verdict_is_in_the_comparisons(study: StudySpec, results: list[TrialResult]) -> None:
    evidence = Evidence.of(study, results, {})
    found = tables(evidence)["comparisons"]
    arms, cells = evidence.comparison
    assert found["verdict"].tolist() == [*arms["verdict"], *cells["verdict"]]
    assert found["setting"].isna().sum() == len(arms)


def test_without_results_the_tables_are_empty(study: StudySpec) -> None:
    assert all(table.empty for table in tables(Evidence.of(study, [], {})).values())
