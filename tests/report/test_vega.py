"""Charts as Vega-Lite specifications."""

from __future__ import annotations

import json
import math

import pytest

from rankopt.report.chart import Axis, Chart, Curves, Grid, Series, Style
from rankopt.report.vega import NUMBERED, panels

STYLE = Style("#000000", "circle")


def curves(series: Series, x: Axis, y: Axis) -> dict[str, object]:
    (spec,) = panels(Chart("c", "", "", (Curves("", (series,), x, y),)))
    json.dumps(spec, allow_nan=False)
    return spec


def test_unknown_errors_draw_no_bar() -> None:
    series = Series("a", STYLE, "line", (1.0, 100.0), (0.5, 0.6), (0.1, math.nan))
    spec = curves(series, Axis("x", log=True, limits=(1.0, 1000.0)), Axis("y"))
    (one,) = spec["layer"]  # type: ignore[misc]
    assert [(row.get("low"), row.get("high")) for row in one["data"]["values"]] == [(0.4, 0.6), (None, None)]
    assert [layer["mark"]["type"] for layer in one["layer"]] == ["line", "rule", "point"]
    assert one["encoding"]["x"]["scale"] == {"type": "log", "nice": False, "domain": [1.0, 1000.0]}


def test_positions_are_those_of_the_data() -> None:
    spec = curves(Series("a", STYLE, "line", (1.0, 2.0), (0.5, 0.6)), Axis("x"), Axis("y"))
    (one,) = spec["layer"]  # type: ignore[misc]
    assert [(row["x"], row["y"]) for row in one["data"]["values"]] == [(1.0, 0.5), (2.0, 0.6)]


def test_ticks_are_literals() -> None:
    """No text of a study is an expression."""
    text = "a'] + datum.value + ['\n\""
    spec = curves(Series("a", STYLE, "line", (1.0,), (0.5,)), Axis("x", ticks=((1.0, text),)), Axis("y"))
    label = spec["layer"][0]["encoding"]["x"]["axis"]["labelExpr"]  # type: ignore[index]
    assert label == f"{json.dumps([text.split(chr(10))])}[indexof([1.0], datum.value)]"


@pytest.mark.parametrize(("columns", "layers"), [(NUMBERED, 2), (NUMBERED + 1, 1)])
def test_wide_heat_maps_have_a_colour_bar_instead_of_numbers(columns: int, layers: int) -> None:
    names = tuple(map(str, range(columns)))
    (spec,) = panels(Chart("c", "", "", (Grid("", ("0",), names, ((1.0,) * columns,), 2.0, "rank"),)))
    assert len(spec["layer"]) == layers
    assert (spec["layer"][0]["encoding"]["color"]["legend"] is None) == (layers == 2)
