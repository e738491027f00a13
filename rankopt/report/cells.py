"""The cells of a table as text, for every writer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from rankopt.report.base import Table


@dataclass(frozen=True)
class Cell:
    """What is read, and what it sorts by; numbers stand to the right."""

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
    """For every column, whether it holds numbers."""
    return [bool(kind.kind in "iuf") for kind in table.frame.dtypes]


def _cell(value: Any, spec: str, number: bool) -> Cell:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return Cell("n/a", "", number)
    return Cell(format(value, spec) if number else str(value), repr(float(value)) if number else str(value), number)
