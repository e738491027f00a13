"""Symbols of legend entries."""

from __future__ import annotations

from typing import get_args
from xml.etree import ElementTree

import pytest

from rankopt.report.chart import Mark, Series, Style
from rankopt.report.legend_svg import glyph
from rankopt.report.palette import MARKERS


@pytest.mark.parametrize("mark", get_args(Mark))
@pytest.mark.parametrize("marker", [*MARKERS, "circle", "x"])
def test_every_symbol_is_valid_svg(mark: Mark, marker: str) -> None:
    """In the colour of its series, with a line exactly where the series has one."""
    root = ElementTree.fromstring(glyph(Series("a", Style("#123456", marker), mark, (), ())))
    parts = list(root)
    assert parts
    assert all("#123456" in (part.get("fill"), part.get("stroke")) for part in parts)
    assert any(part.get("d") == "M1 7H33" for part in parts) == (mark not in ("interval", "cloud"))
