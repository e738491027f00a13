"""The cost table: means per trial, and the total."""

from __future__ import annotations

import pytest
from synthetic_results import blocks

from rankopt.core.result import TrialResult
from rankopt.core.study_spec import StudySpec


def test_means_and_total(study: StudySpec, results: list[TrialResult]) -> None:
    block = blocks(study, results)["cost"]
    costs = [result.cost for result in results if result.cost]
    total = sum(cost.train_seconds + cost.evaluate_seconds for cost in costs) / 60
    assert f"{total:,.1f} minutes" in block.text[0]
    frame = block.tables[0].frame
    assert frame["trials"].sum() == len(costs)
    assert frame["padding"].tolist() == [pytest.approx(0.1)] * len(frame)
