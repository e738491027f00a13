"""A study with results and nothing else known."""

from __future__ import annotations

from rankopt.analysis.study_results import StudyResults
from rankopt.core.study_spec import StudySpec


def test_what_is_unknown_is_empty() -> None:
    found = StudyResults(StudySpec.model_validate({"name": "s", "base": {}}), [])
    assert not found.counts
    assert found.search.predictions("key") is None
