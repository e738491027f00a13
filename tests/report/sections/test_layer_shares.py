"""Energy and sensitivity by module type and depth."""

from __future__ import annotations

import pytest
from synthetic_results import one_shot_evidence

from rankopt.core.result import TrialResult
from rankopt.report.sections.layer_shares import LayerShares


def test_shares_of_modules_and_depths(one_shot: list[TrialResult]) -> None:
    """Each group sums to 1; without measurements there is no block."""
    assert LayerShares().block(one_shot_evidence(one_shot)) is None
    layers = {"encoder.0.query": 3.0, "encoder.1.query": 1.0, "encoder.1.value": 4.0}
    measured = {"energy": layers, "sensitivity": dict.fromkeys(layers, 1.0)}
    results = [result.model_copy(update={"measured": measured}) for result in one_shot[:2]] + one_shot[2:]
    block = LayerShares().block(one_shot_evidence(results))
    assert block
    shares = block.tables[0].frame.set_index("module or depth")
    assert shares.loc["query", "energy"] == shares.loc["value", "energy"] == 0.5
    assert shares.loc["encoder.1", "sensitivity"] == pytest.approx(2 / 3)
    assert [len(panel.series) for panel in block.charts[0].panels] == [2]
