"""Figures as values: what is to be drawn, without saying by which library."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["line", "nested", "cloud", "front", "step", "interval"]
"""How a series is drawn.

`line`: markers with error bars, joined; `nested`: small markers, thinly dotted; `cloud`: faint markers only; `front`: a
dashed line only; `step`: a line that keeps its value until the next point; `interval`: markers with bars along x.
"""


@dataclass(frozen=True)
class Style:
    """The looks of one name, the same in every figure of a report."""

    colour: str
    marker: str


@dataclass(frozen=True)
class Series:
    """Points that belong together.

    Attributes:
        label: the entry in the legend; series of one label are shown and hidden together.
        style: see `palette`.
        kind: how it is drawn.
        x, y: the points.
        error: half the length of an error bar at each point (along y; along x for `interval`); NaN draws none.
        hover: text at each point, for interactive figures.
        width: of the line, in pixels.
    """

    label: str
    style: Style
    kind: Kind
    x: tuple[float, ...]
    y: tuple[float, ...]
    error: tuple[float, ...] = ()
    hover: tuple[str, ...] = ()
    width: float = 2.0


@dataclass(frozen=True)
class Axis:
    """An axis: its label, and either explicit ticks or the library's own, written `3.4k` where `counts` says so."""

    label: str
    log: bool = False
    counts: bool = False
    ticks: tuple[tuple[float, str], ...] = ()
    limits: tuple[float, float] | None = None


@dataclass(frozen=True)
class Curves:
    """One set of axes with series."""

    title: str
    series: tuple[Series, ...]
    x: Axis
    y: Axis

    @property
    def bars(self) -> int:
        """The number of intervals below one another; they need height."""
        return sum(len(one.x) for one in self.series if one.kind == "interval")


@dataclass(frozen=True)
class Grid:
    """One matrix of numbers; NaN is an empty cell."""

    title: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: tuple[tuple[float, ...], ...]
    top: float
    unit: str

    @staticmethod
    def text(value: float) -> str:
        """What stands in a cell: one decimal, where it says something."""
        return f"{value:.1f}".removesuffix(".0")


@dataclass(frozen=True)
class Chart:
    """One figure: small multiples of one kind under one caption.

    Attributes:
        name: of its files and its place in the page; unique in a report.
        title: a few words.
        caption: what is shown, what the bars are, how many seeds.
        panels: all `Curves` or all `Grid`.
    """

    name: str
    title: str
    caption: str
    panels: tuple[Curves | Grid, ...]

    @property
    def legend(self) -> dict[str, Series]:
        """One series of every label, the labels sorted; a front comes last."""
        shown = [series for panel in self.panels if isinstance(panel, Curves) for series in panel.series]
        entries = {series.label: series for series in sorted(shown, key=lambda one: one.kind != "line", reverse=True)}
        return dict(sorted(entries.items(), key=lambda entry: (entry[1].kind == "front", entry[0])))
