"""Every allocator beside the control at one task and budget, seed by seed, at equal parameters."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from rankopt.analysis.selection import Selected, select
from rankopt.analysis.statistics import NAN

Values = Mapping[int, float]
"""Seed -> value."""


@dataclass(frozen=True)
class Pair:
    """An allocator beside the control at one task and budget.

    Attributes:
        setting, budget, allocator, name, metric: as in `frame.tidy`.
        key, control_key: first trials of the chosen configurations.
        values: quantity -> seed -> value, for the shared seeds: `score`, `control` (at equal parameters), `difference`
            of the two, negated where lower is better, `at_budget` (the difference at equal budget), `kept` and
            `control_kept`.
        configurations, control_configurations: how many were compared on each side.
        collapsed: whether a training of either side predicts the same for every example.
        unbiased: whether both choices are, see `select`.
        unequal: whether the parameters differ, and the control's curve does not reach the allocator's.
    """

    setting: str
    budget: float
    allocator: str
    name: str
    metric: str
    key: str
    control_key: str
    values: Mapping[str, Values]
    configurations: int
    control_configurations: int
    collapsed: bool
    unbiased: bool
    unequal: bool

    @property
    def seeds(self) -> set[int]:
        """The shared seeds."""
        return set(self.values["difference"])


def pairs(points: pd.DataFrame, averages: pd.DataFrame, control: str) -> list[Pair]:
    """Every allocator beside the control, wherever both have a trial at one task and budget.

    Scores are those of the configuration that was chosen by search scores, at other seeds (see `select`). Where
    an allocator keeps another number of parameters than the control, by more than one component, the control's score is
    interpolated linearly on its own curve over log parameters. Where that curve does not reach, the pair is `unequal`.

    Args:
        points: from `frame.tidy`.
        averages: from `averages.average`.
        control: label of the allocator to compare with.
    Returns:
        Sorted by setting, budget and allocator.
    """
    own = points[points["own"].astype(bool) & points["budget"].notna()]
    groups = dict(list(own.groupby(["setting", "budget", "allocator"], sort=True)))
    sides = {key: select(group) for key, group in groups.items()}
    chosen = averages[averages["chosen"].astype(bool)]
    keys = {(row.setting, row.budget, row.allocator): row.key for row in chosen.itertuples()}
    found = []
    for (setting, budget, allocator), side in sides.items():
        reference = sides.get((setting, budget, control))
        if reference is None or allocator == control:
            continue
        first = groups[setting, budget, allocator].iloc[0]
        curve = [one for (where, _, label), one in sides.items() if where == setting and label == control]
        values, unequal = _values(side, reference, curve, float(first["component"]), int(first["sign"]))
        found.append(
            Pair(
                setting, float(budget), allocator, first["name"], first["metric"], keys[setting, budget, allocator],
                keys[setting, budget, control], values, side.configurations, reference.configurations,
                side.collapsed or reference.collapsed, side.unbiased and reference.unbiased, unequal,
            )
        )  # fmt: skip
    return found


def _values(
    side: Selected, reference: Selected, curve: Sequence[Selected], component: float, sign: int = 1
) -> tuple[Mapping[str, Values], bool]:
    """The values of a pair, and whether its parameters are unequal."""
    seeds = sorted(set(side.scores) & set(reference.scores))
    equal = {
        seed: reference.scores[seed]
        if abs(side.kept[seed] - reference.kept[seed]) <= component
        else interpolated(side.kept[seed], [(one.kept[seed], one.scores[seed]) for one in curve if seed in one.scores])
        for seed in seeds
    }
    unequal = any(math.isnan(score) for score in equal.values())
    control = {seed: reference.scores[seed] for seed in seeds} if unequal else equal
    values = {
        "score": {seed: side.scores[seed] for seed in seeds},
        "control": control,
        "difference": {seed: sign * (side.scores[seed] - control[seed]) for seed in seeds},
        "at_budget": {seed: sign * (side.scores[seed] - reference.scores[seed]) for seed in seeds},
        "kept": {seed: side.kept[seed] for seed in seeds},
        "control_kept": {seed: reference.kept[seed] for seed in seeds},
    }
    return values, unequal


def interpolated(kept: float, curve: Sequence[tuple[float, float]]) -> float:
    """The score of a curve at a number of parameters, linear in log(1 + parameters); NaN outside the curve.

    Args:
        kept: parameters.
        curve: (parameters, score), in any order.
    Example:
        >>> round(interpolated(200, [(100, 0.5), (400, 0.7)]), 3), interpolated(50, [(100, 0.5), (400, 0.7)])
        (0.6, nan)
    """
    x, y = zip(*sorted(curve), strict=True)
    return float(np.interp(math.log1p(kept), np.log1p(x), y, left=NAN, right=NAN))
