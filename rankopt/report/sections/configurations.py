"""The configurations of a search as parallel coordinates."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from rankopt.analysis.search import varied_values
from rankopt.core.path import shortest
from rankopt.core.text import plural
from rankopt.report.base import Block, Section
from rankopt.report.chart import Axes, Chart
from rankopt.report.evidence import Evidence
from rankopt.report.formatting import compact

LOG_FROM = 8.0
"""The ratio of largest to smallest value from which an axis is logarithmic."""

FEW = 6
"""An axis with at most this many values has a tick at each of them."""


MOST = 500
"""Of more configurations, this many are drawn: evenly by score, the best and the worst included."""


class Axis(NamedTuple):
    """A dimension's positions, one per configuration, and its ticks."""

    positions: list[float]
    ticks: tuple[tuple[float, str], ...]


class Configurations(Section):
    """Which values of the dimensions do good configurations of a search share?"""

    def block(self, evidence: Evidence) -> Block | None:
        if evidence.study.listed:
            return None
        panels = tuple(panel for setting in evidence.settings if (panel := _panel(evidence, setting)))
        if not panels:
            return None
        caption = (
            "One line per configuration, from its value in each dimension to its parameters and search score (means "
            "over its trainings); the brighter the line, the higher the score."
        )
        return Block("Configurations", charts=(Chart("configurations", "Configurations", caption, panels),))


def _panel(evidence: Evidence, setting: str) -> Axes | None:
    rows = evidence.averages[evidence.averages["setting"] == setting].sort_values(["search", "key"])
    every = len(rows)
    rows = (
        rows.iloc[sorted({round(index * (every - 1) / (MOST - 1)) for index in range(MOST)})] if every > MOST else rows
    )
    values = [varied_values(evidence.study, evidence.by_key[key].spec) for key in rows["key"]]
    names = [name for name in dict.fromkeys(name for row in values for name in row) if _distinct(values, name) > 1]
    if len(rows) < 2 or not names:
        return None
    columns: dict[str, list[Any]] = {
        name: [row.get(path) for row in values]
        for path, name in zip(names, shortest(name.removesuffix(".name") for name in names), strict=True)
    }
    columns |= {"parameters": rows["kept"].tolist(), "search score": rows["search"].tolist()}
    axes = [axis(column) for column in columns.values()]
    return Axes(
        f"{setting}: {f'{MOST} of ' if every > MOST else ''}{plural(every, 'configuration')}",
        tuple(columns),
        tuple(one.ticks for one in axes),
        tuple(zip(*(one.positions for one in axes), strict=True)),
        tuple(zip(*([_words(value) for value in column] for column in columns.values()), strict=True)),
    )


def _distinct(values: Sequence[Mapping[str, Any]], name: str) -> int:
    return len({repr(row.get(name)) for row in values})


def axis(values: Sequence[Any]) -> Axis:
    """Positions in [0, 1], logarithmic if the values differ by a large ratio; texts are equally spaced.

    Example:
        >>> axis([1.0, 10.0, 100.0]).positions, axis(["b", "a", None]).positions
        ([0.0, 0.5, 1.0], [1.0, 0.0, nan])
    """
    known = [value for value in values if value is not None]
    if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in known):
        names = sorted({_words(value) for value in known})
        places = {name: index / max(1, len(names) - 1) for index, name in enumerate(names)}
        texts = [math.nan if value is None else places[_words(value)] for value in values]
        return Axis(texts, tuple((place, name) for name, place in places.items()))
    low, high = min(known), max(known)
    log = low > 0 and high / low >= LOG_FROM

    def position(value: float) -> float:
        if high == low:
            return 0.5
        return math.log(value / low) / math.log(high / low) if log else (value - low) / (high - low)

    marked = sorted(set(known))
    if len(marked) > FEW:
        middle = math.sqrt(low * high) if log else (low + high) / 2
        marked = [low, middle, high]
    ticks = tuple((round(position(value), 4), compact(value)) for value in marked)
    return Axis([math.nan if value is None else position(value) for value in values], ticks)


def _words(value: Any) -> str:
    if value is None:
        return "n/a"
    if isinstance(value, float):
        return f"{value:,.0f}" if value.is_integer() else f"{value:.4g}"
    return str(value)
