"""Charts as Vega-Lite: one specification per panel, which the page draws and the files are rendered from."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from typing import Any

from rankopt.core.text import visible
from rankopt.report.chart import Axis, Chart, Curves, Grid, Series
from rankopt.report.palette import ink

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
            "$schema": SCHEMA, "width": "container", "description": visible(f"{chart.title}: {panel.title}"),
            "autosize": {"type": "fit-x", "contains": "padding"},
            **(_curves(panel, chart.legend) if isinstance(panel, Curves) else _grid(panel)),
        }
        for panel in chart.panels
    ]  # fmt: skip


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
    layers = [layer for one in panel.series for layer in _layers(one, base, scales)]
    if panel.bars:
        rule = {"data": {"values": [{}]}, "mark": {"type": "rule", "strokeWidth": 1.2}, "encoding": {"x": {"datum": 0}}}
        layers.insert(0, rule)
    return {"height": max(300 if not panel.bars else 120, 14 * panel.bars), "layer": layers}


def _layers(one: Series, base: Json, scales: Json) -> Iterable[Json]:
    """The marks of a series, the line below."""
    rows: list[Json] = [
        {"label": visible(one.label), "x": x, "y": y, "order": index, "text": visible_lines(text)}
        for index, (x, y, text) in enumerate(
            zip(one.x, one.y, one.hover or [f"{one.label}\n{y:.3f}" for y in one.y], strict=True)
        )
    ]
    along = "x" if one.mark == "interval" else "y"
    below = one.below or one.error
    bars = [
        {**row, "low": row[along] - less, "high": row[along] + more}
        for row, less, more in zip(rows, below, one.error, strict=False)
        if not (math.isnan(less) or math.isnan(more))
    ]
    colour = {"color": scales["color"]}
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
    elif one.mark == "cloud":
        point |= {"opacity": 0.4, "size": 30}
    data = {"values": rows}
    if one.mark not in ("interval", "cloud"):
        yield {"data": data, "mark": line, "encoding": {**base, **colour, "order": {"field": "order"}}}
    if bars:
        ends = {along: base[along] | {"field": "low"}, f"{along}2": {"field": "high"}}
        yield {
            "data": {"values": bars},
            "mark": {"type": "rule", "strokeWidth": 1.5},
            "encoding": {**base, **ends, **colour},
        }
    shape = {} if one.mark in ("front", "step") else {"shape": scales["shape"]}
    if one.mark == "step":
        point["opacity"] = 0  # for the hover text only
    yield {"data": data, "mark": point, "encoding": {**base, **colour, **shape, "tooltip": {"field": "text"}}}


def _axis(axis: Axis) -> Json:
    scale: Json = {"zero": False, "nice": not axis.limits}
    if axis.log:
        scale["type"] = "log"
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
    numbered = len(panel.columns) <= NUMBERED
    cells = [
        {
            "row": visible(row), "column": visible(column), "value": value, "ink": ink(value / panel.top),
            "number": panel.text(value), "text": visible_lines(f"{row}, {column}\n{panel.unit} {value:.2f}"),
        }
        for row, values in zip(panel.rows, panel.values, strict=True)
        for column, value in zip(panel.columns, values, strict=True)
        if not math.isnan(value)
    ]  # fmt: skip
    flat = sum(len(name) + 1 for name in panel.columns) <= FLAT
    base = {
        "x": _names("column", panel.columns, None) | {"axis": {"title": None, "labelAngle": 0 if flat else -35}},
        "y": _names("row", panel.rows, "layer"),
    }
    colour = {
        "field": "value", "type": "quantitative", "scale": {"scheme": "viridis", "domain": [0, panel.top]},
        "legend": None if numbered else {"title": visible(panel.unit)},
    }  # fmt: skip
    layers: list[Json] = [{"mark": "rect", "encoding": {**base, "color": colour, "tooltip": {"field": "text"}}}]
    if numbered:
        dark = {"condition": {"test": f"datum.ink == '{ink(1)}'", "value": ink(1)}, "value": ink(0)}
        text = {"text": {"field": "number"}, "color": dark}
        layers.append({"mark": {"type": "text", "fontSize": 11}, "encoding": {**base, **text}})
    return {"height": ROW * len(panel.rows), "data": {"values": cells}, "layer": layers}


def _names(field: str, names: Sequence[str], title: str | None) -> Json:
    order = [visible(name) for name in names]
    return {"field": field, "type": "nominal", "sort": order, "axis": {"title": title}}


def visible_lines(text: str) -> str:
    """Text without control characters other than line feeds."""
    return "\n".join(visible(line) for line in text.split("\n"))
