"""The origin of results."""

from __future__ import annotations

import json

from synthetic_results import blocks

from rankopt.core.result import TrialResult
from rankopt.core.study_spec import StudySpec


def test_mixed_revisions_are_a_warning(study: StudySpec, results: list[TrialResult]) -> None:
    other = [r.model_copy(update={"environment": r.environment | {"revision": r.key[:1]}}) for r in results]
    assert "more than one revision" in blocks(study, other)["provenance"].warnings[0]


def test_the_study_file_is_shown(study: StudySpec, results: list[TrialResult]) -> None:
    """As it was decoded, so that the study can be run again from the report."""
    block = blocks(study, results)["provenance"]
    assert StudySpec.model_validate_json(block.listing) == study
    assert json.loads(block.listing)["name"] in set(block.tables[0].frame["value"])
