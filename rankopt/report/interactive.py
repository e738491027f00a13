"""Charts as plotly figures: data for `Plotly.react`, one figure per panel. The page sets text and grid colours."""

from __future__ import annotations

import math
from typing import Any

from rankopt.report.chart import Axis, Chart, Curves, Grid, Series
from rankopt.report.encode import plotly_text
from rankopt.report.palette import ink

Json = dict[str, Any]

ROW = 30
"""Height of a heat map row, in pixels."""

FLAT = 36
"""Column names of a heat map with more letters in all than this are slanted."""

NUMBERED = 16
"""Heat maps with at most this many columns show numbers in their cells instead of a colour bar."""


def figures(chart: Chart) -> list[Json]:
    """One `{"data": ..., "layout": ...}` per panel.

    The page draws one legend for all panels and finds a label's traces by their `name`.
    """
    return [_curves(panel) if isinstance(panel, Curves) else _grid(panel) for panel in chart.panels]


def _curves(panel: Curves) -> Json:
    layout: Json = {
        "height": max(360 if not panel.bars else 200, 110 + 15 * panel.bars),
        "margin": {"l": 62, "r": 12, "t": 8, "b": 62},
        "showlegend": False,
        "hovermode": "closest",
        "xaxis": _axis(panel.x),
        "yaxis": _axis(panel.y),
    }
    if panel.bars:
        layout["xaxis"] |= {"zeroline": True, "zerolinewidth": 2}
    return {"data": [_trace(one) for one in panel.series], "layout": layout}


def _axis(axis: Axis) -> Json:
    spec: Json = {"title": {"text": plotly_text(axis.label), "standoff": 12}, "automargin": True, "zeroline": False}
    if axis.log:
        spec["type"] = "log"
    if axis.counts:
        spec["tickformat"] = "~s"
    if axis.ticks:
        spec |= {
            "tickmode": "array",
            "tickvals": [value for value, _ in axis.ticks],
            "ticktext": [plotly_text(text) for _, text in axis.ticks],
            "tickangle": 0,
        }
    if axis.limits:
        spec["range"] = [math.log10(limit) if axis.log else limit for limit in axis.limits]
    return spec


def _trace(series: Series) -> Json:
    colour, marker = series.style.colour, series.style.marker
    size = {"dotted": 5, "cloud": 6}.get(series.mark, 9)
    trace: Json = {
        "type": "scatter",
        "name": series.label,
        "x": series.x,
        "y": series.y,
        "mode": {"line": "lines+markers", "dotted": "lines+markers", "front": "lines+markers", "step": "lines"}.get(
            series.mark, "markers"
        ),
        "line": {"color": colour, "width": series.width},
        "marker": {"color": colour, "symbol": "circle" if marker == "none" else marker, "size": size},
        "hovertemplate": "%{text}<extra></extra>" if series.hover else "%{y:.3f}<extra></extra>",
        "text": [plotly_text(text) for text in series.hover],
    }
    if series.mark == "dotted":
        trace["line"] |= {"dash": "dot", "width": 1}
    elif series.mark == "cloud":
        trace["opacity"] = 0.4
    elif series.mark == "front":
        trace["line"] |= {"dash": "dash", "width": 1.5}
        trace["marker"] |= {"symbol": "circle-open", "size": 13}  # visible around a single point too
    elif series.mark == "step":
        trace["line"]["shape"] = "hv"
    if any(not math.isnan(error) for error in series.error):
        bars = [None if math.isnan(error) else error for error in series.error]
        key = "error_x" if series.mark == "interval" else "error_y"
        trace[key] = {"type": "data", "array": bars, "color": colour, "thickness": 1.5, "width": 4}
        if series.below:
            lower = [None if math.isnan(error) else error for error in series.below]
            trace[key] |= {"symmetric": False, "arrayminus": lower}
    return trace


def _grid(panel: Grid) -> Json:
    numbered = len(panel.columns) <= NUMBERED
    values = [[None if math.isnan(value) else value for value in row] for row in panel.values]
    heat = {
        "type": "heatmap",
        "x": list(range(len(panel.columns))),
        "y": list(range(len(panel.rows))),
        "z": values,
        "zmin": 0,
        "zmax": panel.top,
        "colorscale": "Viridis",
        "xgap": 2,
        "ygap": 2,
        "customdata": [[plotly_text(f"{row}, {column}") for column in panel.columns] for row in panel.rows],
        "hovertemplate": "%{customdata}<br>" + plotly_text(panel.unit) + " %{z:.2f}<extra></extra>",
        "showscale": not numbered,
        "colorbar": {"title": {"text": plotly_text(panel.unit), "side": "right"}, "thickness": 10, "outlinewidth": 0},
    }
    cells = [
        (column, row, value)
        for row, line in enumerate(panel.values)
        for column, value in enumerate(line)
        if not math.isnan(value)
    ]
    text = {
        "type": "scatter",
        "mode": "text",
        "x": [column for column, _, _ in cells],
        "y": [row for _, row, _ in cells],
        "text": [panel.text(value) for _, _, value in cells],
        "textfont": {"color": [ink(value / panel.top) for _, _, value in cells], "size": 11},
        "hoverinfo": "skip",
    }
    flat = sum(len(name) + 1 for name in panel.columns) <= FLAT
    names = 20 if flat else 16 + 4 * max(map(len, panel.columns))
    layout = {
        "height": 32 + names + ROW * len(panel.rows),
        # the first slanted name extends to the left, and plotly clips what does not fit
        "margin": {"l": 40 if flat else max(40, 5 * len(panel.columns[0]) - 10), "r": 10, "t": 8, "b": names},
        "xaxis": _names(panel.columns, "") | {"tickangle": 0 if flat else -35},
        "yaxis": _names(panel.rows, "layer") | {"autorange": "reversed"},
    }
    return {"data": [heat, text] if numbered else [heat], "layout": layout}


def _names(names: tuple[str, ...], title: str) -> Json:
    return {
        "title": {"text": title, "standoff": 8},
        "automargin": True,
        "showgrid": False,
        "zeroline": False,
        "tickmode": "array",
        "tickvals": list(range(len(names))),
        "ticktext": [plotly_text(name) for name in names],
    }
