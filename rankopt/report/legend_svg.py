"""The symbol of a legend entry: line and marker of a series as inline SVG."""

from __future__ import annotations

import math

from rankopt.report.chart import Series

CORNERS = {"square": (4, 45), "diamond": (4, 0), "triangle-up": (3, 0), "triangle-down": (3, 180), "pentagon": (5, 0),
           "hexagon": (6, 0)}  # fmt: skip


def glyph(series: Series) -> str:
    """The symbol of a series, 34 by 14 pixels."""
    colour = series.style.colour
    dash = ' stroke-dasharray="5 3"' if series.mark == "front" else ""
    line = f'<path d="M1 7H33" stroke="{colour}" stroke-width="2"{dash}/>'
    parts = [
        "" if series.mark in ("interval", "cloud") else line,
        "" if series.mark in ("step", "front") else _marker(series.style.marker, colour),
        f'<circle cx="17" cy="7" r="5" fill="none" stroke="{colour}" stroke-width="1.5"/>'
        if series.mark == "front"
        else "",
    ]
    return f'<svg width="34" height="14" viewBox="0 0 34 14" aria-hidden="true">{"".join(parts)}</svg>'


def _marker(marker: str, colour: str) -> str:
    if marker == "circle":
        return f'<circle cx="17" cy="7" r="5" fill="{colour}"/>'
    if marker == "x":
        return f'<path d="M13 3L21 11M21 3L13 11" stroke="{colour}" stroke-width="3"/>'
    if marker == "star":
        corners = [(7.0 if corner % 2 == 0 else 2.8, corner * 36.0) for corner in range(10)]
    else:
        count, turn = CORNERS[marker]
        corners = [(6.0, turn + 360 * corner / count) for corner in range(count)]
    points = " ".join(
        f"{17 + radius * math.sin(math.radians(angle)):.1f},{7 - radius * math.cos(math.radians(angle)):.1f}"
        for radius, angle in corners
    )
    return f'<polygon points="{points}" fill="{colour}"/>'
