"""Charts as values."""

from __future__ import annotations

from rankopt.report.chart import Axis, Chart, Curves, Mark, Series, Style


def chart(*series: tuple[str, Mark]) -> Chart:
    drawn = tuple(Series(label, Style("#000000", "circle"), mark, (1.0, 2.0), (1.0, 2.0)) for label, mark in series)
    return Chart("name", "title", "caption", (Curves("", drawn, Axis("x"), Axis("y")),))


def test_legend_has_every_label_once() -> None:
    """Sorted, fronts last; a label's line is shown rather than its cloud."""
    legend = chart(("a front", "front"), ("b", "cloud"), ("b", "line"), ("a", "dotted")).legend
    assert [(label, series.mark) for label, series in legend.items()] == [
        ("a", "dotted"), ("b", "line"), ("a front", "front"),
    ]  # fmt: skip


def test_only_intervals_need_height() -> None:
    (panel,) = chart(("a", "interval"), ("b", "line")).panels
    assert isinstance(panel, Curves)
    assert panel.bars == 2
