"""Figures as values, independent of the plotting library."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Mark = Literal["line", "dotted", "cloud", "front", "step", "interval", "markers"]
"""How a series is drawn.

`line`: markers with error bars, connected; `dotted`: small markers on a thin dotted line; `cloud`: faint markers;
`front`: circles on a dashed line; `step`: constant until the next point; `interval`: markers with bars along x;
`markers`: markers with error bars.
"""


@dataclass(frozen=True)
class Style:
    """Colour and marker of a label, the same in every figure of a report."""

    colour: str
    marker: str


@dataclass(frozen=True)
class Series:
    """Points with one label.

    Attributes:
        label: the legend entry; series with the same label are shown and hidden together.
        style: see `palette`.
        mark: how the series is drawn.
        x, y: coordinates.
        error: half the length of the error bar at each point (along x for `interval`, else along y); NaN draws none.
        hover: text at each point of an interactive figure; lines are separated by line feeds.
        width: of the line, in pixels.
        below: length of the error bar on the lower side, if that differs from `error`.
    """

    label: str
    style: Style
    mark: Mark
    x: tuple[float, ...]
    y: tuple[float, ...]
    error: tuple[float, ...] = ()
    hover: tuple[str, ...] = ()
    width: float = 2.0
    below: tuple[float, ...] = ()


@dataclass(frozen=True)
class Axis:
    """An axis with explicit ticks, or with automatic ones, written like `3.4k` if `counts` is set."""

    label: str
    log: bool = False
    counts: bool = False
    ticks: tuple[tuple[float, str], ...] = ()
    limits: tuple[float, float] | None = None


@dataclass(frozen=True)
class Curves:
    """One pair of axes with series."""

    title: str
    series: tuple[Series, ...]
    x: Axis
    y: Axis

    @property
    def bars(self) -> int:
        """The number of intervals, which are stacked and need height."""
        return sum(len(one.x) for one in self.series if one.mark == "interval")


@dataclass(frozen=True)
class Grid:
    """A heat map; NaN is an empty cell.

    Attributes:
        title: of the panel.
        rows, columns: names.
        values: per row and column.
        top: the value at the end of the colour scale, which begins at 0.
        unit: what a value is.
        past: values at the earlier moments of the chart (`Chart.moments`); empty if they were always the same.
    """

    title: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: tuple[tuple[float, ...], ...]
    top: float
    unit: str
    past: tuple[tuple[tuple[float, ...], ...], ...] = ()


@dataclass(frozen=True)
class Axes:
    """Parallel coordinates: an axis per dimension, and a line per row, coloured by its value on the last axis.

    Attributes:
        title: of the panel.
        names: of the axes, the score's last.
        ticks: per axis, positions in [0, 1] and their texts.
        rows: per line, positions in [0, 1]; NaN where the row has no such dimension.
        texts: per line and axis, the value in words.
    """

    title: str
    names: tuple[str, ...]
    ticks: tuple[tuple[tuple[float, str], ...], ...]
    rows: tuple[tuple[float, ...], ...]
    texts: tuple[tuple[str, ...], ...]


Panel = Curves | Grid | Axes


@dataclass(frozen=True)
class Chart:
    """One figure: small multiples with one caption.

    Attributes:
        name: of its files and of its elements in the page; unique in a report.
        title: a few words.
        caption: what is shown, what error bars are, how many seeds.
        panels: all of one kind.
        moments: of a slider over heat maps, in words; at the last one they show their `values`.
    """

    name: str
    title: str
    caption: str
    panels: tuple[Panel, ...]
    moments: tuple[str, ...] = ()

    @property
    def legend(self) -> dict[str, Series]:
        """Label -> one of its series, sorted by label with fronts last."""
        shown = [series for panel in self.panels if isinstance(panel, Curves) for series in panel.series]
        entries = {series.label: series for series in sorted(shown, key=lambda one: one.mark != "line", reverse=True)}
        return dict(sorted(entries.items(), key=lambda entry: (entry[1].mark == "front", entry[0])))
