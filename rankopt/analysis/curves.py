"""An allocator's score as a function of its parameters, seed by seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rankopt.analysis.selection import select
from rankopt.analysis.statistics import NAN

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """The report scores of an allocator in one setting.

    Attributes:
        setting, allocator, metric: as in `frame.tidy`.
        sign: -1 where a lower score is better, else 1.
        budgets: rising; NaN for trials without a budget.
        seeds: those that every budget has.
        kept: parameters, `(seeds, budgets)`.
        scores: on the report split, `(seeds, budgets)`.
    """

    setting: str
    allocator: str
    metric: str
    sign: int
    budgets: tuple[float, ...]
    seeds: tuple[int, ...]
    kept: Floats
    scores: Floats

    def between(self, parameters: Sequence[float] | Floats) -> Floats:
        """The scores at numbers of parameters, linear in log(1 + parameters); NaN outside the curve.

        Returns:
            `(seeds, parameters)`.
        """
        x = np.log1p(np.asarray(parameters, float))
        # np.interp does not return NaN for it where there is one point
        unknown = np.where(np.isnan(x), NAN, 0.0)
        order = np.argsort(self.kept, axis=1)
        kept, scores = (np.take_along_axis(values, order, axis=1) for values in (self.kept, self.scores))
        return np.array(
            [
                np.interp(x, np.log1p(own), row, left=NAN, right=NAN) + unknown
                for own, row in zip(kept, scores, strict=True)
            ]
        )

    @property
    def reach(self) -> tuple[float, float]:
        """The smallest and the largest number of parameters that every seed's curve covers."""
        return float(self.kept.min(1).max()), float(self.kept.max(1).min())


def curves(points: pd.DataFrame) -> list[Curve]:
    """The curves of every setting and allocator; configurations are chosen by other seeds, see `selection.select`.

    Args:
        points: from `frame.tidy`.
    Returns:
        Sorted by setting and allocator; without those whose budgets share no seed.
    """
    own = points[points["own"].astype(bool)]
    found = []
    for (setting, allocator), rows in own.groupby(["setting", "allocator"], sort=True):
        chosen = {float(budget): select(group) for budget, group in rows.groupby("budget", dropna=False, sort=True)}
        seeds = tuple(sorted(set.intersection(*(set(one.scores) for one in chosen.values()))))
        if seeds:
            kept, scores = (
                np.array([[getattr(one, name)[seed] for one in chosen.values()] for seed in seeds], float)
                for name in ("kept", "scores")
            )
            first = rows.iloc[0]
            found.append(
                Curve(
                    str(setting),
                    str(allocator),
                    first["metric"],
                    int(first["sign"]),
                    tuple(chosen),
                    seeds,
                    kept,
                    scores,
                )
            )
    return found


def common_reach(found: Sequence[Curve]) -> tuple[float, float] | None:
    """The range of parameters that all curves with several budgets cover; None if there is none."""
    reaches = [curve.reach for curve in found if len(curve.budgets) > 1]
    if not reaches:
        return None
    low, high = max(low for low, _ in reaches), min(high for _, high in reaches)
    return (low, high) if low < high else None
