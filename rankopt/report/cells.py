"""Table cells as text, shared by all output formats."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from rankopt.core.text import visible
from rankopt.report.base import Table


@dataclass(frozen=True)
class Cell:
    """The text of a cell, its sort key, and whether it is a number (aligned right)."""

    text: str
    value: str
    number: bool


def cells(table: Table) -> list[list[Cell]]:
    """The rows of a table.

    Example:
        >>> import pandas as pd
        >>> [cell.text for cell in cells(Table(pd.DataFrame({"score": [0.5, None]}), {"score": ".3f"}))[1]]
        ['n/a']
    """
    names = list(table.frame.columns)
    numeric = numbers(table)
    return [
        [
            _cell(value, table.formats.get(name, ""), number)
            for name, value, number in zip(names, row, numeric, strict=True)
        ]
        for row in table.frame.itertuples(index=False, name=None)
    ]


def numbers(table: Table) -> list[bool]:
    """Whether each column is numeric."""
    return [dtype.kind in "iuf" for dtype in table.frame.dtypes]


def _cell(value: Any, spec: str, number: bool) -> Cell:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return Cell("n/a", "", number)
    if number:
        return Cell(format(value, spec), f"{value:.9g}", number)  # enough to sort by
    text = visible(str(value))
    return Cell(text, text, number)
