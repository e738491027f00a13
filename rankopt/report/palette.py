"""A colour and a marker for every label, distinguishable without colour vision and on light and dark pages."""

from __future__ import annotations

from collections.abc import Iterable

from rankopt.analysis.frame import BASELINES
from rankopt.report.chart import Style

NEUTRALS = (Style("#7a7a7a", "circle"), Style("#a98a5b", "x"))
"""Styles of the baselines."""

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8a5cd0", "#9c5221")
"""Okabe and Ito 2008 without black and yellow (invisible on dark or white pages), plus violet and brown."""

MARKERS = ("square", "diamond", "triangle-up", "star", "triangle-down", "pentagon", "hexagon")
"""Seven markers and eight colours give 56 different pairs."""

NEUTRAL = Style("#7a7a7a", "none")


DARK_TO = 0.55
"""The share of viridis' range up to which its colours are dark."""


def ink(share: float) -> str:
    """Black or white, whichever has more contrast with the viridis colour at this share of its range.

    Example:
        >>> ink(0.2), ink(0.9)
        ('#ffffff', '#000000')
    """
    return "#000000" if share > DARK_TO else "#ffffff"


def styles(labels: Iterable[str]) -> dict[str, Style]:
    """The style of every label, a function of the set of labels.

    Example:
        >>> styles(["uniform", "dylora", "adalora"])["adalora"]
        Style(colour='#0072b2', marker='square')
    """
    others = sorted(set(labels) - set(BASELINES))
    return dict(zip(BASELINES, NEUTRALS, strict=True)) | {
        label: Style(COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]) for index, label in enumerate(others)
    }
