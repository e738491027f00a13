"""Where the ranks went: layer by module."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from rankopt.core.path import place, shortest
from rankopt.report.base import Block, Section
from rankopt.report.chart import Chart, Grid
from rankopt.report.evidence import Evidence
from rankopt.report.formatting import span


class Ranks(Section):
    """Which layers keep how many components, at one budget or on a search's front, averaged over seeds?"""

    def block(self, evidence: Evidence) -> Block | None:
        charts = tuple(
            chart for place, setting in enumerate(evidence.settings) if (chart := _chart(evidence, setting, place))
        )
        return Block("Rank patterns", charts=charts) if charts else None


MOST = 6
"""Patterns of a search's front that are drawn, evenly spread."""


def _chart(evidence: Evidence, setting: str, place: int) -> Chart | None:
    grids, seeds = [], []
    title, shown = _at_one_budget(evidence, setting) if evidence.study.listed else _front(evidence, setting)
    own = evidence.points[evidence.points["own"].astype(bool) & (evidence.points["setting"] == setting)]
    for label, row in shown:
        keys = own.loc[own["configuration"] == row["configuration"], "key"]
        patterns = [evidence.by_key[key].own.pattern for key in keys]
        names = list(evidence.by_key[keys.iloc[0]].layers)
        means = {name: float(np.mean([pattern[name] for pattern in patterns])) for name in names}
        grids.append((label, means))
        seeds.append(len(patterns))
    if not any(means for _, means in grids):
        return None
    top = max(1.0, *(rank for _, means in grids for rank in means.values()))
    return Chart(
        f"ranks-{place + 1}",
        title,
        f"Final rank of every adapted layer, mean over {span(min(seeds), max(seeds), 'seed')}; one colour scale.",
        tuple(_grid(label, means, top) for label, means in grids),
    )


def _at_one_budget(evidence: Evidence, setting: str) -> tuple[str, Iterator[tuple[str, pd.Series]]]:
    budget = evidence.typical_budget(setting)
    chosen = evidence.chosen[evidence.chosen["setting"] == setting]
    # trials without a budget have no level of their own: their patterns stand beside those of the budget shown
    shown = chosen[(chosen["budget"] == budget) | chosen["budget"].isna()]
    title = f"{setting} at mean rank {budget:g}" if budget == budget else setting
    return title, ((str(row["allocator"]), row) for _, row in shown.iterrows())


def _front(evidence: Evidence, setting: str) -> tuple[str, Iterator[tuple[str, pd.Series]]]:
    rows = evidence.front(setting)
    places = sorted({round(place) for place in np.linspace(0, len(rows) - 1, min(MOST, len(rows)))})
    shown = (rows.iloc[place] for place in places)
    title = f"{setting}: the Pareto front" + (f", {len(places)} of {len(rows)}" if len(places) < len(rows) else "")
    return title, ((f"{row['allocator']}, {row['kept']:,.0f} parameters", row) for row in shown)


def _grid(title: str, means: dict[str, float], top: float) -> Grid:
    places = {name: place(name) for name in means}
    depths = list(dict.fromkeys(depth for depth, _ in places.values()))
    modules = list(dict.fromkeys(module for _, module in places.values()))
    cells = {places[name]: value for name, value in means.items()}
    values = tuple(tuple(cells.get((depth, module), float("nan")) for module in modules) for depth in depths)
    return Grid(title, tuple(shortest(depths)), tuple(shortest(modules)), values, top, "rank")
