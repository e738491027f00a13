"""A study with its results, wherever they are stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rankopt.analysis.search import SearchRecord
from rankopt.core.result import TrialResult
from rankopt.core.study_spec import StudySpec


@dataclass(frozen=True)
class StudyResults:
    """What a report is made from.

    Attributes:
        study: the spec.
        results: of complete and failed trials.
        counts: trials in the study's storage by state; may be empty.
        search: what is known beside the results.
    """

    study: StudySpec
    results: Sequence[TrialResult]
    counts: Mapping[str, int] = field(default_factory=dict)
    search: SearchRecord = field(default_factory=SearchRecord)
