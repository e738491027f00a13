"""The synthetic study that most tests of reports read."""

from __future__ import annotations

import pytest
from synthetic_results import grid, super_networks, with_gaps

from rankopt.core.result import TrialResult
from rankopt.core.study_spec import StudySpec


@pytest.fixture(scope="session")
def study() -> StudySpec:
    return grid()


@pytest.fixture(scope="session")
def results(study: StudySpec) -> list[TrialResult]:
    """The grid with one failed and one missing trial."""
    return with_gaps(study)


@pytest.fixture(scope="session")
def one_shot() -> list[TrialResult]:
    """Two super-networks and their patterns trained from scratch."""
    return super_networks()
