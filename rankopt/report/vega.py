"""Charts as Vega-Lite: one specification per panel, which the page draws and the files are rendered from."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from rankopt.core.text import visible
from rankopt.report.chart import Axes, Axis, Chart, Curves, Grid, Panel, Series
from rankopt.report.figure_data import alternative
from rankopt.report.palette import DARK_TO, ink

Json = dict[str, Any]

SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
SHAPES = {
    "circle": "circle", "x": "M-1,-.6L-.6,-1L0,-.4L.6,-1L1,-.6L.4,0L1,.6L.6,1L0,.4L-.6,1L-1,.6L-.4,0Z",
    "square": "square", "diamond": "diamond", "triangle-up": "triangle-up",
    "triangle-down": "triangle-down", "none": "circle",
    "star": "M0,-1L.26,-.36L.95,-.31L.42,.14L.59,.81L0,.44L-.59,.81L-.42,.14L-.95,-.31L-.26,-.36Z",
    "pentagon": "M0,-1L.95,-.31L.59,.81L-.59,.81L-.95,-.31Z", "hexagon": "M0,-1L.87,-.5L.87,.5L0,1L-.87,.5L-.87,-.5Z",
}  # fmt: skip
ROW = 26
"""Height of a heat map row, in pixels."""

FLAT = 36
"""Column names of a heat map with more letters in all than this are slanted."""

NUMBERED = 16
"""Heat maps with at most this many columns show numbers in their cells instead of a colour bar."""


def panels(chart: Chart) -> list[Json]:
    """One specification per panel, with its data, as wide as its element in the page."""
    return [
        {
            "$schema": SCHEMA, "width": "container", "description": alternative(chart, panel),
            "autosize": {"type": "fit-x", "contains": "padding"},
            **_panel(panel, chart),
        }
        for panel in chart.panels
    ]  # fmt: skip


def _panel(panel: Panel, chart: Chart) -> Json:
    match panel:
        case Curves():
            return _curves(panel, chart.legend)
        case Grid():
            return _grid(panel)
        case Axes():
            return _axes(panel)


def _curves(panel: Curves, legend: dict[str, Series]) -> Json:
    labels = list(legend)
    scales = {
        "color": {
            "field": "label", "type": "nominal", "legend": None,
            "scale": {"domain": labels, "range": [legend[label].style.colour for label in labels]},
        },
        "shape": {
            "field": "label", "type": "nominal", "legend": None,
            "scale": {"domain": labels, "range": [SHAPES[legend[label].style.marker] for label in labels]},
        },
    }  # fmt: skip
    base = {
        "x": {"field": "x", "type": "quantitative", **_axis(panel.x)},
        "y": {"field": "y", "type": "quantitative", **_axis(panel.y)},
    }
    layers = [_series(one, base, scales) for one in panel.series]
    if panel.bars:
        rule = {"data": {"values": [{}]}, "mark": {"type": "rule", "strokeWidth": 1.2}, "encoding": {"x": {"datum": 0}}}
        layers.insert(0, rule)
    return {"height": max(300 if not panel.bars else 120, 14 * panel.bars), "layer": layers}


def _series(one: Series, base: Json, scales: Json) -> Json:
    """The marks of a series over one table, the line below."""
    along = "x" if one.mark == "interval" else "y"
    line: Json = {"type": "line", "strokeWidth": one.width}
    point: Json = {"type": "point", "filled": True, "size": 70, "opacity": 1}
    if one.mark == "dotted":
        line |= {"strokeDash": [2, 3], "strokeWidth": 1}
        point["size"] = 18
    elif one.mark == "front":
        line |= {"strokeDash": [6, 4], "strokeWidth": 1.5}
        point |= {"filled": False, "size": 160, "shape": "circle"}  # visible around a single point too
    elif one.mark == "step":
        line["interpolate"] = "step-after"
        point["opacity"] = 0  # for the hover text only
    elif one.mark == "cloud":
        point |= {"fillOpacity": 0.4, "size": 30}  # a group's opacity takes a picture's renderer minutes
    rows = _rows(one, along)
    marks: list[Json] = []
    if one.mark not in ("interval", "cloud", "markers"):
        rows = [{**row, "order": index} for index, row in enumerate(rows)]
        marks.append({"mark": line, "encoding": {"order": {"field": "order"}}})
    if any("low" in row for row in rows):
        ends = {along: base[along] | {"field": "low"}, f"{along}2": {"field": "high"}}
        known = [{"filter": "isValid(datum.low)"}]
        marks.append({"transform": known, "mark": {"type": "rule", "strokeWidth": 1.5}, "encoding": ends})
    shape = {} if one.mark in ("front", "step") else {"shape": scales["shape"]}
    marks.append({"mark": point, "encoding": {**shape, "tooltip": {"field": "text"}}})
    return {"data": {"values": rows}, "encoding": {**base, "color": scales["color"]}, "layer": marks}


def _rows(one: Series, along: str) -> list[Json]:
    """A row per point, with the ends of its error bar where they are known."""
    rows: list[Json] = [
        {"label": visible(one.label), "x": precise(x), "y": precise(y), "text": visible_lines(text)}
        for x, y, text in zip(one.x, one.y, one.hover or [f"{one.label}\n{y:.3f}" for y in one.y], strict=True)
    ]
    for row, less, more in zip(rows, one.below or one.error, one.error, strict=False):
        if not (math.isnan(less) or math.isnan(more)):
            row |= {"low": precise(row[along] - less), "high": precise(row[along] + more)}
    return rows


def _axis(axis: Axis) -> Json:
    scale: Json = {"nice": not axis.limits, **({"type": "log"} if axis.log else {"zero": False})}
    if axis.limits:
        scale["domain"] = list(axis.limits)
    spec: Json = {"title": visible(axis.label) or None}
    if axis.ticks:
        texts = [visible_lines(text).split("\n") for _, text in axis.ticks]
        spec["values"] = [value for value, _ in axis.ticks]
        # a literal list, so that no text is an expression
        spec["labelExpr"] = f"{json.dumps(texts)}[indexof({json.dumps(spec['values'])}, datum.value)]"
    elif axis.counts:
        spec["format"] = "~s"
        if axis.log:
            spec["tickCount"] = 6
    return {"scale": scale, "axis": spec}


def _grid(panel: Grid) -> Json:
    """Every cell has its values over time, or one value; the signal `moment` says which is shown."""
    numbered = len(panel.columns) <= NUMBERED
    moments = (*panel.past, panel.values)
    cells = [
        {"row": visible(row), "column": visible(column), "values": [round(values[i][k], 3) for values in moments]}
        for i, row in enumerate(panel.rows)
        for k, column in enumerate(panel.columns)
        if not math.isnan(panel.values[i][k])
    ]
    flat = sum(len(name) + 1 for name in panel.columns) <= FLAT
    base = {
        "x": _names("column", panel.columns, None) | {"axis": {"title": None, "labelAngle": 0 if flat else -35}},
        "y": _names("row", panel.rows, "layer"),
    }
    colour = {
        "field": "value", "type": "quantitative", "scale": {"scheme": "viridis", "domain": [0, panel.top]},
        "legend": None if numbered else {"title": visible(panel.unit)},
    }  # fmt: skip
    unit = json.dumps(visible(panel.unit))
    shown = [
        {"calculate": "datum.values[min(moment, length(datum.values) - 1)]", "as": "value"},
        {"calculate": f"datum.row + ', ' + datum.column + '\\n' + {unit} + ' ' + datum.value", "as": "text"},
        {"calculate": "replace(format(datum.value, '.1f'), '.0', '')", "as": "number"},
    ]
    layers: list[Json] = [{"mark": "rect", "encoding": {**base, "color": colour, "tooltip": {"field": "text"}}}]
    if numbered:
        bright = f"datum.value > {DARK_TO * panel.top}"
        text = {"text": {"field": "number"}, "color": {"condition": {"test": bright, "value": ink(1)}, "value": ink(0)}}
        layers.append({"mark": {"type": "text", "fontSize": 11}, "encoding": {**base, **text}})
    return {
        "height": ROW * len(panel.rows), "params": [{"name": "moment", "value": len(panel.past)}],
        "data": {"values": cells}, "transform": shown, "layer": layers,
    }  # fmt: skip


def _axes(panel: Axes) -> Json:
    """One row per line, with its positions by the number of the axis; they are folded into points by Vega."""
    numbers = [str(index) for index in range(len(panel.names))]
    rows = [
        {
            "line": index,
            "text": "\n".join(visible(f"{name}: {text}") for name, text in zip(panel.names, texts, strict=True)),
            **{number: None if math.isnan(x) else round(x, 4) for number, x in zip(numbers, row, strict=True)},
        }
        for index, (row, texts) in enumerate(zip(panel.rows, panel.texts, strict=True))
    ]  # fmt: skip
    ticks = [
        {"axis": number, "position": position, "label": visible(text)}
        for number, shown in zip(numbers, panel.ticks, strict=True)
        for position, text in shown
    ]
    labels = f"{json.dumps([visible(name) for name in panel.names])}[toNumber(datum.value)]"
    x = {
        "field": "axis", "type": "ordinal", "scale": {"type": "point", "padding": 0.35},
        "axis": {"title": None, "labelExpr": labels, "labelAngle": 0, "domain": False, "ticks": False, "grid": True,
                 "orient": "top", "offset": 14, "labelLimit": 140},
    }  # fmt: skip
    y = {"field": "position", "type": "quantitative", "scale": {"domain": [0, 1]}, "axis": None}
    last = numbers[-1]
    colour = {
        "field": last, "type": "quantitative", "legend": None,
        "scale": {"scheme": "viridis", "domain": [0, 1]},
    }  # fmt: skip
    lines = {
        "data": {"values": rows},
        "transform": [{"fold": numbers, "as": ["axis", "position"]}, {"filter": "isValid(datum.position)"},
                      {"calculate": "toNumber(datum.axis)", "as": "place"}],
        "mark": {"type": "line", "strokeWidth": 1.5, "strokeOpacity": 0.55},
        "encoding": {
            "x": x, "y": y, "color": colour, "detail": {"field": "line"}, "order": {"field": "place"},
            "tooltip": {"field": "text"},
        },
    }  # fmt: skip
    words = {
        "data": {"values": ticks}, "mark": {"type": "text", "align": "right", "dx": -5, "fontSize": 11},
        "encoding": {"x": x, "y": y, "text": {"field": "label"}},
    }  # fmt: skip
    return {"height": 320, "layer": [lines, words]}


def _names(field: str, names: Sequence[str], title: str | None) -> Json:
    order = [visible(name) for name in names]
    return {"field": field, "type": "nominal", "sort": order, "axis": {"title": title}}


def precise(value: float) -> float:
    """A coordinate with seven digits, far below a pixel: a page may have thousands.

    Example:
        >>> precise(0.1 + 0.2), precise(1234567.0)
        (0.3, 1234567.0)
    """
    return float(f"{value:.7g}")


def visible_lines(text: str) -> str:
    """Text without control characters other than line feeds."""
    return "\n".join(visible(line) for line in text.split("\n"))
