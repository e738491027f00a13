"""Sections: each one answers a question, and none leaves an empty block."""

from __future__ import annotations

import pytest

from rankopt.core.result import TrialResult
from rankopt.core.study_spec import StudySpec
from rankopt.report.base import Section
from rankopt.report.evidence import Evidence
from rankopt.report.sections import SECTIONS


@pytest.mark.parametrize("name", SECTIONS)
def test_a_section_answers_a_question(name: str, study: StudySpec, results: list[TrialResult]) -> None:
    """Its docstring begins with the question, and its block has a title and content."""
    section = SECTIONS[name]
    assert isinstance(section, Section)
    assert "?" in (type(section).__doc__ or "").splitlines()[0]
    block = section.block(Evidence.of(study, results, {}))
    assert block is None or (block.title and (block.text or block.bullets or block.tables or block.charts))
