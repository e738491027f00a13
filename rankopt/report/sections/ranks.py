"""Rank patterns: layer by module, over training."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from rankopt.core.path import depth_and_module, shortest
from rankopt.core.result import TrialResult
from rankopt.report.base import Block, Section
from rankopt.report.chart import Chart, Grid
from rankopt.report.evidence import Evidence
from rankopt.report.formatting import span

MOST = 6
"""The largest number of patterns drawn from a search's Pareto front."""

STOPS = 20
"""Steps of the slider from the start of training to its end."""

Shown = Iterator[tuple[str, pd.Series]]


class Ranks(Section):
    """How many components does each layer keep, during training and after it?"""

    def block(self, evidence: Evidence) -> Block | None:
        found = [figure for setting in evidence.settings for figure in _figures(evidence, setting)]
        drawn = [chart for setting, title, shown in found if (chart := _chart(evidence, setting, title, shown))]
        charts = tuple(replace(chart, name=f"ranks-{number}") for number, chart in enumerate(drawn, 1))
        return Block("Rank patterns", charts=charts) if charts else None


def _figures(evidence: Evidence, setting: str) -> Iterator[tuple[str, str, Shown]]:
    """Of a grid one figure per budget, of a search one of its Pareto front."""
    if not evidence.study.listed:
        yield (setting, *_front(evidence, setting))
        return
    chosen = evidence.chosen[evidence.chosen["setting"] == setting]
    for budget in sorted(set(chosen["budget"].dropna())) or [math.nan]:
        # a trial without a budget has no level of its own, so it is shown at every budget
        shown = chosen[(chosen["budget"] == budget) | chosen["budget"].isna()]
        title = f"{setting} at mean rank {budget:g}" if budget == budget else setting
        yield setting, title, ((str(row["allocator"]), row) for _, row in shown.iterrows())


def _front(evidence: Evidence, setting: str) -> tuple[str, Shown]:
    rows = evidence.front(setting)
    drawn = sorted({round(index) for index in np.linspace(0, len(rows) - 1, min(MOST, len(rows)))})
    shown = (rows.iloc[index] for index in drawn)
    title = f"{setting}: the Pareto front" + (f", {len(drawn)} of {len(rows)}" if len(drawn) < len(rows) else "")
    return title, ((f"{row['allocator']}, {row['kept']:,.0f} parameters", row) for row in shown)


def _chart(evidence: Evidence, setting: str, title: str, shown: Shown) -> Chart | None:
    own = evidence.points[evidence.points["own"].astype(bool) & (evidence.points["setting"] == setting)]
    arms: list[tuple[str, list[TrialResult]]] = []
    for label, row in shown:
        results = [evidence.by_key[key] for key in own.loc[own["configuration"] == row["configuration"], "key"]]
        if results[0].layers:  # otherwise a method without ranks
            arms.append((label, results))
    if not arms:
        return None
    histories = [np.mean([ranks_over_time(result) for result in results], axis=0) for _, results in arms]
    top = max(1.0, *(float(history.max()) for history in histories))
    grids = tuple(
        grid(label, list(results[0].layers), history, top, "rank")
        for (label, results), history in zip(arms, histories, strict=True)
    )
    seeds = [len(results) for _, results in arms]
    moving = any(grid.past for grid in grids)
    caption = (
        f"Rank of every adapted layer after training, mean over {span(min(seeds), max(seeds), 'seed')}. "
        f"All panels share one colour scale.{' On the page, the slider shows earlier times.' if moving else ''}"
    )
    steps = {result.cost.steps if result.cost else 0 for _, results in arms for result in results}
    return Chart("", title, caption, grids, _moments(steps) if moving else ())


def ranks_over_time(result: TrialResult) -> NDArray[np.float64]:
    """The active ranks at `STOPS + 1` equally spaced times of training, then the final ones: (times, layers)."""
    final = [result.own.pattern[layer] for layer in result.layers]
    steps = result.cost.steps if result.cost else 0
    if not (result.ranks and steps):
        return np.array([final] * (STOPS + 2), dtype=float)
    changes = [event.step for event in result.ranks]
    times = np.searchsorted(changes, [_step(stop, steps) for stop in range(STOPS + 1)], side="right")
    return np.array([*(result.ranks[max(0, time - 1)].ranks for time in times), final], dtype=float)


def _step(stop: int, steps: int) -> int:
    return round(stop * steps / STOPS)


def _moments(steps: set[int]) -> tuple[str, ...]:
    """The stops of the slider: steps if all trainings have as many, otherwise shares of training."""
    (most,) = steps if len(steps) == 1 else (0,)
    return (
        *(f"step {_step(k, most):,} of {most:,}" if most else f"{k / STOPS:.0%} of training" for k in range(STOPS + 1)),
        "after training",
    )


def grid(title: str, layers: Sequence[str], history: ArrayLike, top: float, unit: str) -> Grid:
    """A heat map of layers by depth and module.

    Args:
        title: of the panel.
        layers: their names.
        history: a value per time and layer.
        top, unit: see `Grid`.
    """
    places = {depth_and_module(layer): index for index, layer in enumerate(layers)}
    depths, modules = (list(dict.fromkeys(place[part] for place in places)) for part in (0, 1))

    def values(amounts: NDArray[np.float64]) -> tuple[tuple[float, ...], ...]:
        known = {place: float(amounts[index]) for place, index in places.items()}
        return tuple(tuple(known.get((depth, module), math.nan) for module in modules) for depth in depths)

    *past, last = np.asarray(history, dtype=float)
    changed = any((amounts != last).any() for amounts in past)
    rows, columns = tuple(shortest(depths)), tuple(shortest(modules))
    return Grid(title, rows, columns, values(last), top, unit, tuple(map(values, past)) if changed else ())
