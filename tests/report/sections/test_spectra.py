"""Spectra of the trained updates."""

from __future__ import annotations

import pytest
from synthetic_results import blocks

from rankopt.core.result import TrialResult
from rankopt.core.study_spec import StudySpec
from rankopt.report.chart import Curves, Grid


def measured(result: TrialResult) -> TrialResult:
    """Two equal singular values in every layer that has two components, one otherwise."""
    if not result.points:
        return result
    return result.model_copy(
        update={"spectra": {name: (2.0,) * min(2, rank) for name, rank in result.own.pattern.items()}}
    )


def test_energy_and_effective_rank(study: StudySpec, results: list[TrialResult]) -> None:
    block = blocks(study, [measured(result) for result in results])["spectra"]
    assert [chart.name for chart in block.charts] == ["energy-1", "effective-rank-1", "energy-2", "effective-rank-2"]
    energy, effective, *_ = block.charts
    (curves,) = energy.panels
    assert isinstance(curves, Curves)
    uniform = next(series for series in curves.series if series.label == "uniform")
    assert uniform.y == pytest.approx((0.5, 0.5))
    grid = next(panel for panel in effective.panels if panel.title == "uniform")
    assert isinstance(grid, Grid)
    assert [value for row in grid.values for value in row] == pytest.approx([2.0] * 16)


def test_older_results_have_none(study: StudySpec, results: list[TrialResult]) -> None:
    assert "spectra" not in blocks(study, results)
