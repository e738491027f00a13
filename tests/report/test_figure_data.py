"""What a figure shows, as words and as tables."""

from __future__ import annotations

import math

from rankopt.report.cells import cells
from rankopt.report.chart import Axes, Axis, Chart, Curves, Grid, Panel, Series, Style
from rankopt.report.figure_data import alternative, figure_tables

STYLE = Style("#000000", "circle")


def texts(panel: Panel) -> list[list[str]]:
    (table,) = figure_tables(Chart("c", "title", "", (panel,)))
    return [list(table.frame.columns), *([cell.text for cell in row] for row in cells(table))]


def test_points_and_their_bars() -> None:
    one = Series("a", STYLE, "line", (1000.0, 2000.0), (0.5, 0.61234), (0.1, math.nan))
    two = Series("b", STYLE, "cloud", (1500.0,), (0.7,))
    assert texts(Curves("p", (one, two), Axis("parameters"), Axis("score"))) == [
        ["series", "score", "parameters", "low", "high"],
        ["a", "0.500", "1,000", "0.400", "0.600"],
        ["a", "0.612", "2,000", "n/a", "n/a"],
        ["b", "0.700", "1,500", "n/a", "n/a"],
    ]


def test_stacked_markers_are_named_by_their_tick() -> None:
    one = Series("a", STYLE, "interval", (0.1,), (0.8,), (0.3,), below=(0.2,))
    y = Axis("", ticks=((0.0, "rank 1"), (1.0, "rank 2")))
    assert texts(Curves("p", (one,), Axis("difference"), y))[1] == ["a", "rank 2", "0.100", "-0.100", "0.400"]


def test_heat_maps_and_lines() -> None:
    grid = Grid("p", ("0", "1"), ("q", "v"), ((1.0, 2.5), (3.0, math.nan)), 3.0, "rank")
    assert texts(grid) == [["layer (rank by module)", "q", "v"], ["0", "1", "2.5"], ["1", "3", "n/a"]]
    axes = Axes("p", ("lr", "score"), ((), ()), ((0.0, 1.0),), (("0.001", "0.7"),))
    assert texts(axes) == [["lr", "score"], ["0.001", "0.7"]]


def test_the_alternative_names_what_is_drawn() -> None:
    curves = Curves("rte", (Series("a", STYLE, "line", (1.0,), (1.0,)),), Axis("parameters"), Axis("accuracy"))
    text = alternative(Chart("c", "Trade-off", "", (curves,)), curves)
    assert text.startswith("Trade-off: rte. accuracy against parameters, for a.")
