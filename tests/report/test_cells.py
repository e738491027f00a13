"""Cells: formats, missing values and sort keys."""

from __future__ import annotations

import pandas as pd

from rankopt.report.base import Table
from rankopt.report.cells import cells, numbers


def test_text_sort_key_and_alignment() -> None:
    """Numbers are formatted and sort by their value; missing ones are n/a and have no sort key."""
    frame = pd.DataFrame({"score": [0.5, float("nan")], "n": [1000, 2], "name": ["a", None]})
    table = Table(frame, {"score": ".3f", "n": ",.0f"})
    assert numbers(table) == [True, True, False]
    first, second = cells(table)
    assert [(cell.text, cell.value) for cell in first] == [("0.500", "0.5"), ("1,000", "1000"), ("a", "a")]
    assert [cell.text for cell in second] == ["n/a", "2", "n/a"]
    assert second[0].value == ""


def test_no_control_characters() -> None:
    (row,) = cells(Table(pd.DataFrame({"reason": ["\x1b[31mred\x1b[0m"]})))
    assert row[0].text == row[0].value == "red"
