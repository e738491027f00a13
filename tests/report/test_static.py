"""Charts as files, rendered from their specifications."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from xml.etree import ElementTree

import pytest
import vl_convert
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
    """The SVG file names every panel."""
    for evidence in (Evidence.of(study, results, {}), one_shot_evidence(one_shot)):
        for section in SECTIONS.values():
            for chart in block.charts if (block := section.block(evidence)) else ():
                save(chart, tmp_path)
                svg = ElementTree.parse(tmp_path / f"{chart.name}.svg")
                texts = {element.text for element in svg.iter() if str(element.tag).endswith("text")}
                assert {panel.title for panel in chart.panels if panel.title} <= texts
                assert set(chart.legend) <= texts


def test_the_legend_wraps() -> None:
    """It has as many columns as its longest label leaves room for."""
    series = tuple(Series(f"{'long ' * 5}{k}", Style("#000000", "circle"), "line", (1.0,), (0.1,)) for k in range(3))
    *_, legend = figure(Chart("c", "", "", (Curves("", series, Axis("x"), Axis("y")),)))["vconcat"]
    assert [row["row"] for row in legend["data"]["values"]] == [0, 1, 2]


@pytest.fixture
def chart(one_shot: list[TrialResult]) -> Chart:
    block = OneShot().block(one_shot_evidence(one_shot))
    assert block is not None
    return block.charts[0]


def test_equal_charts_are_equal_bytes(chart: Chart, tmp_path: Path) -> None:
    found = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        save(chart, tmp_path / name, printed=True)
        found.append([path.read_bytes() for path in sorted((tmp_path / name).iterdir())])
    assert found[0] == found[1]
    pdf, png, _ = found[0]
    assert pdf.startswith(b"%PDF")
    assert png.startswith(b"\x89PNG")


def test_a_picture_that_shows_the_same_is_not_drawn_again(
    chart: Chart, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another chart of its name and half a file are drawn."""
    path = tmp_path / f"{chart.name}.svg"
    save(chart, tmp_path)
    first = path.read_text()
    with monkeypatch.context() as patch:
        patch.setattr(vl_convert, "vegalite_to_svg", None)
        save(chart, tmp_path)
        with pytest.raises(TypeError):
            save(replace(chart, caption="Other."), tmp_path)
    path.write_text(first[: len(first) // 2])
    save(chart, tmp_path)
    assert path.read_text() == first
    save(replace(chart, caption="Other."), tmp_path)
    assert path.read_text() != first


def test_the_script_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANKOPT_CACHE", str(tmp_path))
    kept = tmp_path / f"vega-{version('vl-convert-python')}.js"
    kept.write_text("kept")
    assert script() == "kept"
