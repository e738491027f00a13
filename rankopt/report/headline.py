"""The answer of a report in a few lines, for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from rankopt.core.result import TrialResult
from rankopt.core.study_spec import StudySpec

LINES = 3


def headline(study: StudySpec, results: Sequence[TrialResult], width: int = 80) -> list[str]:
    """The short form of the report's answer: the sentences that fit into three lines, in its order.

    Args:
        study: the spec.
        results: of its plan, as for a report.
        width: columns of the terminal.
    Returns:
        At most three lines; none without a complete result.
    """
    # pandas and scipy are slow to import, which a command that has nothing to say must not wait for
    from rankopt.analysis.search import SearchRecord
    from rankopt.report.evidence import Evidence
    from rankopt.report.sections.answer import answer

    record = SearchRecord(plan=[result.key for result in results]) if study.listed else SearchRecord()
    evidence = Evidence.of(study, results, {}, record)
    lines: list[str] = []
    for sentence in answer(evidence) if evidence.settings else ():
        wrapped = textwrap.wrap(sentence.brief, width, break_long_words=False, break_on_hyphens=False)
        if len(lines) + len(wrapped) > LINES:
            break
        lines += wrapped
    return lines
