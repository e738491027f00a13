"""Where the ranks went: layer by module."""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np

from rankopt.report.block import Block, Section
from rankopt.report.chart import Chart, Grid
from rankopt.report.evidence import Evidence
from rankopt.report.words import span


class Ranks(Section):
    """Which layers keep how many components, at one budget, averaged over seeds?"""

    def block(self, evidence: Evidence) -> Block | None:
        charts = tuple(
            chart for place, setting in enumerate(evidence.settings) if (chart := _chart(evidence, setting, place))
        )
        return Block("Rank patterns", charts=charts) if charts else None


def _chart(evidence: Evidence, setting: str, place: int) -> Chart | None:
    budget = evidence.typical_budget(setting)
    chosen = evidence.chosen[evidence.chosen["setting"] == setting]
    # trials without a budget have no level of their own: their patterns stand beside those of the budget shown
    shown = chosen[(chosen["budget"] == budget) | chosen["budget"].isna()]
    grids, seeds = [], []
    for row in shown.itertuples():
        keys = evidence.runs(setting, row.budget, row.allocator)["key"]
        patterns = [evidence.by_key[key].own.pattern for key in keys]
        names = list(evidence.by_key[keys.iloc[0]].layers)
        means = {name: float(np.mean([pattern[name] for pattern in patterns])) for name in names}
        grids.append((row.allocator, means))
        seeds.append(len(patterns))
    if not any(means for _, means in grids):
        return None
    top = max(1.0, *(rank for _, means in grids for rank in means.values()))
    at = f" at mean rank {budget:g}" if budget == budget else ""
    return Chart(
        f"ranks-{place + 1}",
        f"{setting}{at}",
        f"Final rank of every adapted layer, mean over {span(min(seeds), max(seeds), 'seed')}; one colour scale.",
        tuple(_grid(title, means, top) for title, means in grids),
    )


def _grid(title: str, means: dict[str, float], top: float) -> Grid:
    places = {name: place(name) for name in means}
    depths = list(dict.fromkeys(depth for depth, _ in places.values()))
    modules = list(dict.fromkeys(module for _, module in places.values()))
    cells = {places[name]: value for name, value in means.items()}
    values = tuple(tuple(cells.get((depth, module), float("nan")) for module in modules) for depth in depths)
    return Grid(title, tuple(shortest(depths)), tuple(shortest(modules)), values, top, "rank")


def place(name: str) -> tuple[str, str]:
    """The depth and the module of a layer's name, split at its first number.

    Example:
        >>> place("roberta.encoder.layer.3.attention.self.query"), place("pooler.dense")
        (('roberta.encoder.layer.3', 'attention.self.query'), ('-', 'pooler.dense'))
    """
    found = re.match(r"((?:[^.]+\.)*?\d+)\.(.+)", name)
    return (found[1], found[2]) if found else ("-", name)


def shortest(names: Iterable[str]) -> list[str]:
    """Dotted names cut from the left as far as they stay different.

    Example:
        >>> shortest(["attention.self.query", "attention.output.dense", "output.dense"])
        ['query', 'attention.output.dense', 'output.dense']
    """
    full = list(names)

    def short(name: str) -> str:
        parts = name.split(".")
        ends = (".".join(parts[start:]) for start in range(len(parts) - 1, 0, -1))
        return next((end for end in ends if sum(f".{other}".endswith(f".{end}") for other in full) == 1), name)

    return [short(name) for name in full]
