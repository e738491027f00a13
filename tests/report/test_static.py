"""Charts as files, rendered from their specifications."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from xml.etree import ElementTree

import pytest
from synthetic_results import one_shot_evidence

from rankopt.core.result import TrialResult
from rankopt.core.study_spec import StudySpec
from rankopt.report.chart import Axis, Chart, Curves, Series, Style
from rankopt.report.evidence import Evidence
from rankopt.report.sections import SECTIONS
from rankopt.report.sections.oneshot import OneShot
from rankopt.report.static import figure, save, script


def test_every_chart_is_drawn(
    study: StudySpec, results: list[TrialResult], one_shot: list[TrialResult], tmp_path: Path
) -> None:
    """The SVG file names every panel, and the PNG file is not empty."""
    for evidence in (Evidence.of(study, results, {}), one_shot_evidence(one_shot)):
        for section in SECTIONS.values():
            for chart in block.charts if (block := section.block(evidence)) else ():
                png, svg = save(chart, tmp_path)
                assert png.read_bytes().startswith(b"\x89PNG")
                texts = {element.text for element in ElementTree.parse(svg).iter() if element.tag.endswith("text")}
                assert {panel.title for panel in chart.panels if panel.title} <= texts
                assert set(chart.legend) <= texts


def test_the_legend_wraps() -> None:
    """It has as many columns as its longest label leaves room for."""
    series = tuple(Series(f"{'long ' * 5}{k}", Style("#000000", "circle"), "line", (1.0,), (0.1,)) for k in range(3))
    *_, legend = figure(Chart("c", "", "", (Curves("", series, Axis("x"), Axis("y")),)))["vconcat"]
    assert [row["row"] for row in legend["data"]["values"]] == [0, 1, 2]


def test_equal_charts_are_equal_bytes(one_shot: list[TrialResult], tmp_path: Path) -> None:
    block = OneShot().block(one_shot_evidence(one_shot))
    assert block is not None
    found = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        found.append([path.read_bytes() for path in save(block.charts[0], tmp_path / name)])
    assert found[0] == found[1]


def test_the_script_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANKOPT_CACHE", str(tmp_path))
    kept = tmp_path / f"vega-{version('vl-convert-python')}.js"
    kept.write_text("kept")
    assert script() == "kept"
