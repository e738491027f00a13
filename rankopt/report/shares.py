"""Shares that sum to 1, as a table and as a chart."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from rankopt.report.base import Table
from rankopt.report.chart import Axis, Chart, Curves, Series
from rankopt.report.palette import styles

Shares = Mapping[str, Mapping[str, float]]
"""Column -> row -> share."""


def shares_table(shares: Shares, rows: str, title: str = "") -> Table:
    """One row per entry, in the order of the first column.

    Args:
        shares: see `Shares`.
        rows: the heading of the first column.
        title: of the table.
    """
    first = next(iter(shares.values()))
    frame = pd.DataFrame(
        [{rows: name, **{column: part.get(name, 0.0) for column, part in shares.items()}} for name in first]
    )
    return Table(frame, dict.fromkeys(shares, ".1%"), title)


def shares_chart(table: Table, name: str, title: str, caption: str, x: str) -> Chart:
    """The same shares as markers, one row per entry.

    Args:
        table: from `shares_table`.
        name, title, caption: of the chart.
        x: label of the x-axis.
    """
    frame = table.frame.iloc[::-1]  # the first row on top
    rows, *columns = frame.columns
    looks = styles(columns)
    heights = tuple(float(height) for height in range(len(frame)))
    series = tuple(
        Series(
            column, looks[column], "interval", tuple(frame[column]), heights,
            hover=tuple(f"{row}\n{column}: {share:.1%}" for row, share in zip(frame[rows], frame[column], strict=True)),
        )
        for column in columns
    )  # fmt: skip
    y = Axis("", ticks=tuple(zip(heights, frame[rows], strict=True)), limits=(-0.6, len(frame) - 0.4))
    return Chart(name, title, caption, (Curves("", series, Axis(x), y),))
