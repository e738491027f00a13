"""Parallel coordinates of a search."""

from __future__ import annotations

import math

import pytest
from synthetic_results import blocks, searched

from rankopt.core.result import TrialResult
from rankopt.core.study_spec import StudySpec
from rankopt.report.chart import Axes
from rankopt.report.sections import configurations
from rankopt.report.sections.configurations import axis


def test_a_line_per_configuration(study: StudySpec) -> None:
    """From its dimensions to its score; the best one ends on top."""
    spec, results = searched(study)
    (chart,) = blocks(spec, results)["configurations"].charts
    (panel,) = chart.panels
    assert isinstance(panel, Axes)
    assert panel.names == ("mean_rank", "lr", "parameters", "search score")
    assert len(panel.rows) == len(results) == 12
    best = max(results, key=lambda result: result.score("search"))
    (row,) = (texts for row, texts in zip(panel.rows, panel.texts, strict=True) if row[-1] == 1)
    assert row[:2] == (f"{best.spec['budget']['mean_rank']:.0f}", f"{best.spec['training']['lr']:g}")
    assert row[2:] == (f"{best.own.kept:,}", f"{best.score('search'):.4g}")


def test_of_many_an_even_choice_is_drawn(study: StudySpec, monkeypatch: pytest.MonkeyPatch) -> None:
    """The best and the worst are among them, and the title says so."""
    monkeypatch.setattr(configurations, "MOST", 5)
    spec, results = searched(study)
    ((panel,),) = (chart.panels for chart in blocks(spec, results)["configurations"].charts)
    assert panel.title == "mini-cola: 5 of 12 configurations"
    assert [row[-1] for row in panel.rows][:: len(panel.rows) - 1] == [0.0, 1.0]  # type: ignore[union-attr]


def test_a_grid_has_none(study: StudySpec, results: list[TrialResult]) -> None:
    assert "configurations" not in blocks(study, results)


def test_axes_of_other_values() -> None:
    """One value is in the middle, booleans are texts, and many values have three ticks."""
    assert axis([3, 3]).positions == [0.5, 0.5]
    assert axis([True, False, None]).ticks == ((0.0, "False"), (1.0, "True"))
    assert math.isnan(axis([True, False, None]).positions[2])
    assert [text for _, text in axis([float(k) for k in range(9)]).ticks] == ["0", "4", "8"]
