"""What a figure shows, as words and as tables."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from rankopt.core.text import plural, visible
from rankopt.report.base import Table
from rankopt.report.chart import Axes, Axis, Chart, Curves, Grid, Panel, Series
from rankopt.report.formatting import joined

PRECISE = 10.0
"""Numbers of which none is larger have three decimals."""


def alternative(chart: Chart, panel: Panel) -> str:
    """A panel in one sentence, for readers who do not see it.

    Example:
        >>> grid = Grid("adalora", ("0", "1"), ("query",), ((1.0,), (2.0,)), 2.0, "rank")
        >>> alternative(Chart("c", "Ranks", "", (grid,)), grid)
        'Ranks: adalora. Heat map of rank, 2 layers by 1 module. Its numbers are in the table below the figure.'
    """
    title = f"{chart.title}: {panel.title}" if panel.title else chart.title
    match panel:
        case Grid():
            layers, modules = plural(len(panel.rows), "layer"), plural(len(panel.columns), "module")
            what = f"Heat map of {panel.unit}, {layers} by {modules}"
        case Axes():
            what = f"Parallel coordinates of {plural(len(panel.rows), 'line')} over {joined(panel.names)}"
        case Curves():
            axes = " against ".join(axis.label for axis in (panel.y, panel.x) if axis.label)
            what = f"{axes}, for {joined(dict.fromkeys(one.label for one in panel.series))}"
    return visible(f"{title}. {what}. Its numbers are in the table below the figure.")


def figure_tables(chart: Chart) -> tuple[Table, ...]:
    """The numbers that a figure shows, a table per panel; of heat maps those at the last moment."""
    return tuple(
        _table(panel, f"{chart.title}: {panel.title}" if panel.title else chart.title) for panel in chart.panels
    )


def _table(panel: Panel, title: str) -> Table:
    match panel:
        case Grid():
            cells = [[round(value, 3) for value in values] for values in panel.values]
            frame = pd.DataFrame(cells, columns=list(panel.columns))
            frame.insert(0, f"layer ({panel.unit} by module)", list(panel.rows), allow_duplicates=True)
            return Table(frame, dict.fromkeys(panel.columns, "g"), title)
        case Axes():
            return Table(pd.DataFrame(list(panel.texts), columns=list(panel.names)), {}, title)
        case Curves():
            return _points(panel, title)


def _points(panel: Curves, title: str) -> Table:
    """A row per point; a bar's ends where it has one."""
    named = any(one.mark == "interval" for one in panel.series)
    x, y = panel.x.label or "x", panel.y.label or "row"
    rows = [
        {
            "series": one.label,
            y: _nearest(panel.y, one.y[i]) if named else one.y[i],
            x: one.x[i],
            **_ends(one, i),
        }
        for one in panel.series
        for i in range(len(one.x))
    ]
    frame = pd.DataFrame(
        rows, columns=["series", y, x, *(["low", "high"] if any("low" in row for row in rows) else [])]
    )
    specs = {x: ",.0f" if panel.x.counts else _spec(frame[x])} | ({} if named else {y: _spec(frame[y])})
    bars = specs[x if named else y]
    return Table(frame, specs | {"low": bars, "high": bars}, title)


def _ends(one: Series, index: int) -> dict[str, float]:
    if not one.error:
        return {}
    centre = (one.x if one.mark == "interval" else one.y)[index]
    return {"low": centre - (one.below or one.error)[index], "high": centre + one.error[index]}


def _nearest(axis: Axis, value: float) -> str:
    """The text of the tick that a stacked marker belongs to."""
    return min(axis.ticks, key=lambda tick: abs(tick[0] - value))[1] if axis.ticks else f"{value:g}"


def _spec(values: Sequence[float]) -> str:
    known = pd.Series(values).dropna()
    if (known == known.round()).all():
        return ",.0f"
    return ".3f" if known.abs().max() < PRECISE else ",.1f"
