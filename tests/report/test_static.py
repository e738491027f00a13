"""Charts as files by matplotlib."""

from __future__ import annotations

from pathlib import Path

from synthetic_results import one_shot_evidence

from rankopt.core.result import TrialResult
from rankopt.report.chart import Axis, Chart, Curves, Series, Style
from rankopt.report.sections.oneshot import OneShot
from rankopt.report.static import draw, save


def test_long_labels_fit_the_figure(one_shot: list[TrialResult]) -> None:
    """The legend has as many columns as its longest label leaves room for."""
    block = OneShot().block(one_shot_evidence(one_shot))
    assert block is not None
    figure = draw(block.charts[0])
    figure.draw_without_rendering()
    legend = figure.legends[0].get_window_extent()
    assert figure.bbox.x0 <= legend.x0 < legend.x1 <= figure.bbox.x1


def test_a_dollar_starts_no_formula(tmp_path: Path) -> None:
    """Names may contain what matplotlib would read as mathematics; numbers on a log axis are plain text."""
    series = Series("$\\frac$", Style("#000000", "circle"), "line", (1.0, 1000.0), (0.1, 0.2))
    chart = Chart("c", "", "", (Curves("$x$", (series,), Axis("$", log=True), Axis("y")),))
    png, svg = save(chart, tmp_path)
    assert png.stat().st_size > 1000
    text = svg.read_text()
    assert "\\mathdefault" not in text
    assert "<!-- $\\frac$ -->" in text


def test_equal_charts_are_equal_bytes(one_shot: list[TrialResult], tmp_path: Path) -> None:
    block = OneShot().block(one_shot_evidence(one_shot))
    assert block is not None
    found = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        found.append([path.read_bytes() for path in save(block.charts[0], tmp_path / name)])
    assert found[0] == found[1]
