"""Charts as plotly figures."""

from __future__ import annotations

import math

import plotly.graph_objects as go
import pytest
from synthetic_results import one_shot_evidence

from rankopt.core.result import TrialResult
from rankopt.core.study_spec import StudySpec
from rankopt.report.chart import Axis, Chart, Curves, Grid, Series, Style
from rankopt.report.evidence import Evidence
from rankopt.report.interactive import NUMBERED, figures
from rankopt.report.sections import SECTIONS

STYLE = Style("#000000", "circle")


def test_every_figure_is_valid(study: StudySpec, results: list[TrialResult], one_shot: list[TrialResult]) -> None:
    """plotly accepts each of them; a panel is a figure."""
    for evidence in (Evidence.of(study, results, {}), one_shot_evidence(one_shot)):
        for section in SECTIONS.values():
            for chart in block.charts if (block := section.block(evidence)) else ():
                assert len(figures(chart)) == len(chart.panels)
                for figure in figures(chart):
                    go.Figure(figure)


def test_unknown_errors_and_log_limits() -> None:
    """A NaN error draws no bar; limits of a log axis are exponents."""
    series = Series("a", STYLE, "line", (1.0, 100.0), (0.5, 0.6), (0.1, math.nan))
    panel = Curves("", (series,), Axis("x", log=True, limits=(1.0, 1000.0)), Axis("y"))
    (figure,) = figures(Chart("c", "", "", (panel,)))
    assert figure["data"][0]["error_y"]["array"] == [0.1, None]
    assert figure["layout"]["xaxis"]["range"] == pytest.approx([0.0, 3.0])


@pytest.mark.parametrize(("columns", "traces"), [(NUMBERED, 2), (NUMBERED + 1, 1)])
def test_wide_heat_maps_have_a_colour_bar_instead_of_numbers(columns: int, traces: int) -> None:
    names = tuple(map(str, range(columns)))
    (figure,) = figures(Chart("c", "", "", (Grid("", ("0",), names, ((1.0,) * columns,), 2.0, "rank"),)))
    assert len(figure["data"]) == traces
    assert figure["data"][0]["showscale"] == (traces == 1)
