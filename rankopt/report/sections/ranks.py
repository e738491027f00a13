"""Rank patterns: layer by module."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from rankopt.core.path import depth_and_module, shortest
from rankopt.report.base import Block, Section
from rankopt.report.chart import Chart, Grid
from rankopt.report.evidence import Evidence
from rankopt.report.formatting import span

MOST = 6
"""The largest number of patterns drawn from a search's Pareto front."""


class Ranks(Section):
    """How many components does each layer keep, at one budget or on a search's Pareto front?"""

    def block(self, evidence: Evidence) -> Block | None:
        charts = tuple(
            chart
            for number, setting in enumerate(evidence.settings, 1)
            if (chart := _chart(evidence, setting, f"ranks-{number}"))
        )
        return Block("Rank patterns", charts=charts) if charts else None


def _chart(evidence: Evidence, setting: str, name: str) -> Chart | None:
    grids, seeds = [], []
    title, shown = _at_one_budget(evidence, setting) if evidence.study.listed else _front(evidence, setting)
    own = evidence.points[evidence.points["own"].astype(bool) & (evidence.points["setting"] == setting)]
    for label, row in shown:
        keys = own.loc[own["configuration"] == row["configuration"], "key"]
        patterns = [evidence.by_key[key].own.pattern for key in keys]
        layers = list(evidence.by_key[keys.iloc[0]].layers)
        if not layers:
            continue  # a method without ranks
        grids.append((label, {layer: float(np.mean([pattern[layer] for pattern in patterns])) for layer in layers}))
        seeds.append(len(patterns))
    if not any(means for _, means in grids):
        return None
    top = max(1.0, *(rank for _, means in grids for rank in means.values()))
    return Chart(
        name,
        title,
        f"Final rank of every adapted layer, mean over {span(min(seeds), max(seeds), 'seed')}. "
        "All panels share one colour scale.",
        tuple(_grid(label, means, top) for label, means in grids),
    )


def _at_one_budget(evidence: Evidence, setting: str) -> tuple[str, Iterator[tuple[str, pd.Series]]]:
    budget = evidence.typical_budget(setting)
    chosen = evidence.chosen[evidence.chosen["setting"] == setting]
    # a trial without a budget has no level of its own, so it is shown at every budget
    shown = chosen[(chosen["budget"] == budget) | chosen["budget"].isna()]
    title = f"{setting} at mean rank {budget:g}" if budget == budget else setting
    return title, ((str(row["allocator"]), row) for _, row in shown.iterrows())


def _front(evidence: Evidence, setting: str) -> tuple[str, Iterator[tuple[str, pd.Series]]]:
    rows = evidence.front(setting)
    drawn = sorted({round(index) for index in np.linspace(0, len(rows) - 1, min(MOST, len(rows)))})
    shown = (rows.iloc[index] for index in drawn)
    title = f"{setting}: the Pareto front" + (f", {len(drawn)} of {len(rows)}" if len(drawn) < len(rows) else "")
    return title, ((f"{row['allocator']}, {row['kept']:,.0f} parameters", row) for row in shown)


def _grid(title: str, means: dict[str, float], top: float) -> Grid:
    cells = {depth_and_module(layer): mean for layer, mean in means.items()}
    depths, modules = (list(dict.fromkeys(cell[part] for cell in cells)) for part in (0, 1))
    values = tuple(tuple(cells.get((depth, module), float("nan")) for module in modules) for depth in depths)
    return Grid(title, tuple(shortest(depths)), tuple(shortest(modules)), values, top, "rank")
