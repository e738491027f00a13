"""Charts as SVG, PNG and PDF files, rendered from their Vega-Lite specifications without a browser."""

from __future__ import annotations

import math
import re
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rankopt.core.folders import cache_folder, new_file
from rankopt.core.spec import content_hash
from rankopt.core.text import visible
from rankopt.report.chart import Chart, Curves, Grid, Panel
from rankopt.report.vega import SCHEMA, SHAPES, panels

Json = dict[str, Any]

ACROSS = 3
"""Panels per row."""

WIDTH = 360
"""Width of a panel with axes, in pixels."""

CELL = 44
"""Width of a heat map's column, in pixels."""

AXIS = 130
"""Width of an axis of parallel coordinates, in pixels."""

ENTRIES = re.compile(rb"(?:^ +/\w+ \d+ 0 R\n){2,}", re.MULTILINE)
"""Consecutive entries of a PDF's dictionary that refer to other objects."""

OF_A_PAGE = ("$schema", "autosize", "description", "params")
"""Parts of a panel's specification that a figure of several panels has once, or not at all."""

LOOKS: Json = {
    # the renderer brings the first font along, and the others have letters of the same width
    "background": "white", "font": "Liberation Sans, Arial, Helvetica, sans-serif", "view": {"stroke": None},
    # texts without a limit are measured once instead of twice, which is most of a figure's time
    "axis": {"gridColor": "#dddddd", "domainColor": "#888888", "tickColor": "#888888", "titleFontWeight": "normal",
             "labelLimit": 0, "titleLimit": 0},
    "title": {"anchor": "start", "fontSize": 13, "limit": 0}, "rule": {"color": "#777777"},
}  # fmt: skip


def save(chart: Chart, folder: Path, printed: bool = False) -> None:
    """Write `<folder>/<chart.name>.svg`, and `.png` and `.pdf` if `printed`, with the same bytes for the same chart.

    A file of an earlier report that shows the same is kept, because drawing takes most of a report's time. It says at
    its end what it was drawn from.
    """
    spec, path = figure(chart), folder / f"{chart.name}.svg"
    mark = f"<!-- {content_hash([spec, version('vl-convert-python')])} -->\n"
    if path.is_file() and (text := path.read_text(encoding="utf-8")).endswith(mark):
        if not printed:
            return
    else:
        import vl_convert  # starts slowly

        text = vl_convert.vegalite_to_svg(spec) + mark
        path.write_text(text, encoding="utf-8", newline="\n")
    if printed:
        _print(text, path)


def _print(svg: str, path: Path) -> None:
    """Write a picture as `.png` and `.pdf` beside its SVG file."""
    import vl_convert

    path.with_suffix(".png").write_bytes(vl_convert.svg_to_png(svg, scale=2))
    # fonts, and the entries of a PDF's dictionaries, come in random order: one font is used, and the entries are sorted
    data = vl_convert.svg_to_pdf(svg.replace('font-weight="bold"', ""))
    data = ENTRIES.sub(lambda run: b"".join(sorted(run[0].splitlines(keepends=True))), data)
    path.with_suffix(".pdf").write_bytes(data)


def figure(chart: Chart) -> Json:
    """The panels of a chart in rows of at most three, with a legend below."""
    parts = [
        {
            **{key: value for key, value in spec.items() if key not in OF_A_PAGE},
            "width": _width(panel),
            "title": visible(panel.title),
        }
        for panel, spec in zip(chart.panels, panels(chart), strict=True)
    ]  # fmt: skip
    rows = [{"hconcat": parts[start : start + ACROSS]} for start in range(0, len(parts), ACROSS)]
    width = WIDTH * min(ACROSS, len(parts))
    legend = [_legend(chart, width)] if chart.legend else []
    return {
        "$schema": SCHEMA, "description": visible(f"{chart.title}. {chart.caption}"), "vconcat": [*rows, *legend],
        # one signal for all heat maps, which show the last moment
        "params": [{"name": "moment", "value": max(1, len(chart.moments)) - 1}],
        "config": LOOKS, "padding": 8, "resolve": {"scale": {"color": "independent", "shape": "independent"}},
    }  # fmt: skip


def _width(panel: Panel) -> int:
    if isinstance(panel, Grid):
        return CELL * len(panel.columns)
    return WIDTH if isinstance(panel, Curves) else AXIS * len(panel.names)


def _legend(chart: Chart, width: int) -> Json:
    """The labels with their symbols, in as many columns as the longest label leaves room for."""
    labels = list(chart.legend)
    across = max(1, min(len(labels), width // (30 + 7 * max(map(len, labels)))))
    height = 20 * math.ceil(len(labels) / across)
    rows = [
        {"label": visible(label), "column": index % across, "row": index // across}
        for index, label in enumerate(labels)
    ]
    position = {
        "x": {"field": "column", "type": "quantitative", "axis": None, "scale": {"domain": [0, across], "nice": False}},
        "y": {"field": "row", "type": "quantitative", "axis": None, "scale": {"domain": [len(rows) / across, -0.6]}},
    }
    looks = {
        channel: {"field": "label", "type": "nominal", "legend": None, "scale": {"domain": labels, "range": values}}
        for channel, values in (
            ("color", [one.style.colour for one in chart.legend.values()]),
            ("shape", [SHAPES[one.style.marker] for one in chart.legend.values()]),
        )
    }
    text = {"text": {"field": "label"}}
    return {
        "width": width, "height": height, "data": {"values": rows},
        "layer": [
            {"mark": {"type": "point", "filled": True, "size": 70, "opacity": 1}, "encoding": {**position, **looks}},
            {"mark": {"type": "text", "align": "left", "dx": 10, "fontSize": 12}, "encoding": {**position, **text}},
        ],
    }  # fmt: skip


def script() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script.

    Making it takes seconds, so it is kept in the cache folder.
    """
    import vl_convert

    path = cache_folder() / f"vega-{version('vl-convert-python')}.js"
    if path.is_file():
        return path.read_text(encoding="utf-8")
    text = str(vl_convert.javascript_bundle(None))  # type: ignore[arg-type]  # the stub lacks the default
    with suppress(OSError):  # if the folder cannot be written, it is made again next time
        new_file(path, text)
    return text
