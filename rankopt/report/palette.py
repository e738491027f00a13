"""A colour and a marker for every allocator, told apart without colour vision and on light and dark paper."""

from __future__ import annotations

from collections.abc import Iterable

from rankopt.report.chart import Style

CONTROLS = {"uniform": Style("#7a7a7a", "circle"), "random": Style("#a98a5b", "x")}
"""The two references are neutral wherever they appear."""

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8a5cd0", "#9c5221")
"""Okabe and Ito 2008 without black and yellow, which vanish on dark and on white paper, then violet and brown."""

MARKERS = ("square", "diamond", "triangle-up", "star", "triangle-down", "pentagon", "hexagon")
"""Seven beside eight colours, so that 56 names pass before a pair repeats."""

NEUTRAL = Style("#7a7a7a", "none")


def ink(share: float) -> str:
    """Black or white, whichever is read better on the viridis colour at this share of its range.

    Example:
        >>> ink(0.2), ink(0.9)
        ('#ffffff', '#000000')
    """
    return "#000000" if share > 0.55 else "#ffffff"


def styles(labels: Iterable[str]) -> dict[str, Style]:
    """The style of every label; it depends on the set of labels only.

    Example:
        >>> styles(["uniform", "dylora", "adalora"])["adalora"]
        Style(colour='#0072b2', marker='square')
    """
    free = sorted(set(labels) - set(CONTROLS))
    chosen = {
        label: Style(COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)]) for place, label in enumerate(free)
    }
    return CONTROLS | chosen
