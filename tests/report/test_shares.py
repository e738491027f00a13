"""Shares as table and chart."""

from __future__ import annotations

import pytest

from rankopt.report.chart import Curves
from rankopt.report.shares import shares_chart, shares_table


def test_rows_are_in_order_and_the_first_is_on_top() -> None:
    """A share that a column lacks is 0."""
    table = shares_table({"energy": {"a": 0.7, "b": 0.3}, "score": {"b": 1.0}}, "name", "title")
    assert table.frame.to_dict("list") == {"name": ["a", "b"], "energy": [0.7, 0.3], "score": [0.0, 1.0]}
    assert set(table.formats.values()) == {".1%"}
    (panel,) = shares_chart(table, "shares", "", "", "share").panels
    assert isinstance(panel, Curves)
    assert panel.y.ticks == ((0.0, "b"), (1.0, "a"))
    assert panel.series[0].x == pytest.approx((0.3, 0.7))
    assert panel.series[0].hover == ("b\nenergy: 30.0%", "a\nenergy: 70.0%")
