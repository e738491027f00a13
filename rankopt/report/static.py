"""Charts as PNG and SVG files by matplotlib; equal charts give equal bytes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from matplotlib import style
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from rankopt.report.chart import Axis, Chart, Curves, Grid, Series
from rankopt.report.formatting import compact
from rankopt.report.palette import ink

MARKERS = {
    "circle": "o", "x": "X", "square": "s", "diamond": "D", "triangle-up": "^", "star": "*", "triangle-down": "v",
    "pentagon": "p", "hexagon": "h", "none": "",
}  # fmt: skip
LOOKS: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # shipped with matplotlib, so the result does not depend on the machine
    "text.parse_math": False,  # "$" in a name starts no formula
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.titlesize": 10,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "errorbar.capsize": 3,
    "legend.frameon": False,
}
RINGS: dict[str, Any] = {"marker": "o", "markersize": 10, "markerfacecolor": "none", "markeredgewidth": 1.2}
"""Circles around the points of a front, which may be a single one."""

ACROSS = 3
"""Panels per row."""


def save(chart: Chart, folder: Path) -> list[Path]:
    """Write `<folder>/<chart.name>.png` and `.svg`.

    Returns:
        The two paths.
    """
    # "default" first, so that no settings of this machine have an effect
    with style.context(["default", {**LOOKS, "svg.hashsalt": chart.name}]):
        figure = draw(chart)
        png, svg = folder / f"{chart.name}.png", folder / f"{chart.name}.svg"
        # without date and version, so that equal results give equal bytes
        figure.savefig(png, dpi=160, metadata={"Software": None})
        figure.set_layout_engine("none")  # keep the layout for the second file
        figure.savefig(svg, metadata={"Date": None, "Creator": None})
    return [png, svg]


def draw(chart: Chart) -> Figure:
    """The figure of a chart: panels in rows of at most three, one legend below."""
    columns = min(ACROSS, len(chart.panels))
    rows = math.ceil(len(chart.panels) / columns)
    widths, heights = zip(*(_size(panel) for panel in chart.panels), strict=True)
    figure = Figure(figsize=(max(widths) * columns, max(heights) * rows + 0.5))
    FigureCanvasAgg(figure)
    figure.set_layout_engine("constrained", wspace=0.05, hspace=0.05)
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    image = None
    for ax, panel in zip(axes, chart.panels, strict=False):
        ax.set_title(panel.title, loc="left", fontweight="bold")
        if isinstance(panel, Curves):
            _curves(ax, panel)
        else:
            image = _grid(ax, panel)
    for ax in axes[len(chart.panels) :]:
        ax.set_axis_off()
    if image is not None:
        figure.colorbar(image, ax=axes.tolist(), label="rank", shrink=0.6)
    if len(chart.legend) > 0:
        handles = [_handle(one) for one in chart.legend.values()]
        widest = 0.6 + 0.07 * max(map(len, chart.legend))  # inches: symbol with gaps, and width per letter
        across = max(1, int(max(widths) * columns / widest))
        figure.legend(handles=handles, loc="outside lower center", ncols=min(across, len(handles)))
    return figure


def _size(panel: Curves | Grid) -> tuple[float, float]:
    if isinstance(panel, Curves):
        return 5.2, max(3.7 if not panel.bars else 2.4, 1.3 + 0.14 * panel.bars)
    return 1.4 + 0.55 * len(panel.columns), 1.5 + 0.26 * len(panel.rows)


def _curves(ax: Any, panel: Curves) -> None:
    ax.grid(True)
    if panel.bars:
        ax.axvline(0, color="#777777", linewidth=1.2)
        ax.grid(False, axis="y")
    for one in panel.series:
        _draw(ax, one)
    _axis(ax, "x", panel.x)
    _axis(ax, "y", panel.y)


def _draw(ax: Any, one: Series) -> None:
    colour, marker = one.style.colour, MARKERS[one.style.marker]
    if one.mark == "step":
        ax.step(one.x, one.y, where="post", color=colour, linewidth=0.8 * one.width)
    elif one.mark == "front":
        ax.plot(one.x, one.y, color=colour, linestyle="--", linewidth=1.2, **RINGS)
    elif one.mark == "dotted":
        ax.plot(one.x, one.y, color=colour, linestyle=":", linewidth=1, marker=marker, markersize=3)
    elif one.mark == "cloud":
        ax.plot(one.x, one.y, color=colour, linestyle="", marker=marker, markersize=4, alpha=0.4)
    else:
        sides = (one.below, one.error) if one.below else one.error
        bars = {"xerr" if one.mark == "interval" else "yerr": sides} if _has_bars(one) else {}
        line = "" if one.mark == "interval" else "-"
        ax.errorbar(one.x, one.y, **bars, color=colour, linestyle=line, marker=marker, markersize=6, linewidth=1.6)


def _has_bars(one: Series) -> bool:
    return any(not math.isnan(error) for error in one.error)


def _axis(ax: Any, which: str, axis: Axis) -> None:
    ax.set(**{f"{which}label": axis.label})
    if axis.log:
        ax.set(**{f"{which}scale": "log"})
    one = ax.xaxis if which == "x" else ax.yaxis
    if axis.log:
        one.set_major_locator(LogLocator(subs=(1, 2, 5)))
        one.set_minor_formatter(NullFormatter())  # avoids mixing 4 x 10^4 with 100k
    if axis.counts or axis.log:
        one.set_major_formatter(lambda value, _: compact(value))
    if axis.ticks:
        ax.set(
            **{
                f"{which}ticks": [value for value, _ in axis.ticks],
                f"{which}ticklabels": [text for _, text in axis.ticks],
            }
        )
        ax.tick_params(axis=which, which="minor", length=0, labelbottom=False)
    if axis.limits:
        ax.set(**{f"{which}lim": axis.limits})


def _grid(ax: Any, panel: Grid) -> Any:
    image = ax.imshow(panel.values, cmap="viridis", vmin=0, vmax=panel.top, aspect="auto")
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    slant = (
        {}
        if sum(len(name) + 1 for name in panel.columns) <= 7 * len(panel.columns)
        else {"rotation": 35, "ha": "right"}
    )
    ax.set_xticks(range(len(panel.columns)), panel.columns, **slant)
    ax.set_yticks(range(len(panel.rows)), panel.rows)
    ax.set_ylabel("layer")
    for row, values in enumerate(panel.values):
        for column, value in enumerate(values):
            if not math.isnan(value):
                colour = ink(value / panel.top)
                ax.text(column, row, panel.text(value), ha="center", va="center", color=colour, fontsize=7)
    return image


def _handle(one: Series) -> Line2D:
    marker: Any = {"marker": "" if one.mark == "step" else MARKERS[one.style.marker]}
    if one.mark == "front":
        marker = RINGS
    line: Any = {"front": "--", "interval": "", "cloud": ""}.get(one.mark, "-")
    return Line2D([], [], color=one.style.colour, **marker, linestyle=line, linewidth=1.6, label=one.label)
