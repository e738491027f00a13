"""Every allocator beside the control at one task and budget, seed by seed, at equal parameters."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from rankopt.analysis.selection import Selected, select

Values = Mapping[int, float]
"""Seed -> value."""

NEAR = 1.1
"""A trial without ranks is compared with the control where their parameters differ by this factor at most."""


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
        trials: seed -> key of a trial -> weight of its score in the difference.
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
    trials: Mapping[int, Mapping[str, float]]

    @property
    def seeds(self) -> set[int]:
        """The shared seeds."""
        return set(self.values["difference"])


def pairs(points: pd.DataFrame, averages: pd.DataFrame, control: str) -> list[Pair]:
    """Every allocator beside the control, wherever both have a trial at one task and budget.

    Scores are those of the configuration that was chosen by search scores, at other seeds (see `select`). Where
    an allocator keeps another number of parameters than the control, by more than one component, the control's score is
    interpolated linearly on its own curve over log parameters. Where that curve does not reach, the pair is `unequal`.
    A trial without ranks (an adapter, a method of PEFT) is compared at the control's budget whose parameters are
    nearest, if the control's curve reaches it or the two differ by at most a tenth; full fine-tuning is not compared.

    Args:
        points: from `frame.tidy`.
        averages: from `averages.average`.
        control: label of the allocator to compare with.
    Returns:
        Sorted by setting, budget and allocator.
    """
    own = points[points["own"].astype(bool)]
    places = _places(own, control)
    own = _placed(own, places)
    where = pd.MultiIndex.from_frame(own[["setting", "budget"]])
    own = own[where.isin(where[own["allocator"] == control])]  # a search has thousands of budgets without a control
    groups = dict(list(own.groupby(["setting", "budget", "allocator"], sort=True)))
    sides = {key: select(group) for key, group in groups.items()}
    chosen = _placed(averages[averages["chosen"].astype(bool)], places)
    keys = {(row.setting, row.budget, row.allocator): row.key for row in chosen.itertuples()}
    found = []
    for (setting, budget, allocator), side in sides.items():
        reference = sides.get((setting, budget, control))
        if reference is None or allocator == control:
            continue
        first = groups[setting, budget, allocator].iloc[0]
        curve = [one for (where, _, label), one in sides.items() if where == setting and label == control]
        component = float(groups[setting, budget, control]["component"].iloc[0])
        values, trials, unequal = _values(side, reference, curve, component, int(first["sign"]))
        found.append(
            Pair(
                setting, float(budget), allocator, first["name"], first["metric"], keys[setting, budget, allocator],
                keys[setting, budget, control], values, side.configurations, reference.configurations,
                side.collapsed or reference.collapsed, side.unbiased and reference.unbiased, unequal, trials,
            )
        )  # fmt: skip
    return found


def _places(own: pd.DataFrame, control: str) -> dict[tuple[str, str], float]:
    """The budgets of arms without ranks, by setting and allocator: the control's with the nearest parameters.

    An arm has none where the control's curve does not reach its parameters and they differ by more than `NEAR`.
    """
    curves = {
        setting: group.groupby("budget")["kept"].mean().map(math.log1p)
        for setting, group in own[(own["allocator"] == control) & own["budget"].notna()].groupby("setting")
    }
    found = {}
    for (setting, allocator), group in own[own["budget"].isna()].groupby(["setting", "allocator"]):
        if (curve := curves.get(setting)) is not None:
            at = math.log1p(float(group["kept"].mean()))
            nearest = (curve - at).abs().idxmin()
            if curve.min() <= at <= curve.max() or abs(curve[nearest] - at) <= math.log(NEAR):
                found[setting, allocator] = float(nearest)
    return found


def _placed(rows: pd.DataFrame, places: Mapping[tuple[str, str], float]) -> pd.DataFrame:
    """The rows that have a budget, their own or that of their place."""
    arms = zip(rows["setting"], rows["allocator"], strict=True)
    budgets = rows["budget"].fillna(pd.Series([places.get(arm, math.nan) for arm in arms], rows.index, dtype=float))
    return rows.assign(budget=budgets)[budgets.notna()]


def _values(
    side: Selected, reference: Selected, curve: Sequence[Selected], component: float, sign: int = 1
) -> tuple[Mapping[str, Values], Mapping[int, Mapping[str, float]], bool]:
    """The values of a pair, the trials in its differences, and whether its parameters are unequal."""
    seeds = sorted(set(side.scores) & set(reference.scores))
    equal = {
        seed: [(reference, 1.0)]
        if abs(side.kept[seed] - reference.kept[seed]) <= component
        else _between(side.kept[seed], [one for one in curve if seed in one.scores], seed)
        for seed in seeds
    }
    unequal = not all(equal.values())
    parts = {seed: [(reference, 1.0)] for seed in seeds} if unequal else equal
    control = {seed: sum(weight * one.scores[seed] for one, weight in parts[seed]) for seed in seeds}
    values = {
        "score": {seed: side.scores[seed] for seed in seeds},
        "control": control,
        "difference": {seed: sign * (side.scores[seed] - control[seed]) for seed in seeds},
        "at_budget": {seed: sign * (side.scores[seed] - reference.scores[seed]) for seed in seeds},
        "kept": {seed: side.kept[seed] for seed in seeds},
        "control_kept": {seed: reference.kept[seed] for seed in seeds},
    }
    trials = {
        seed: {side.keys[seed]: float(sign)} | {one.keys[seed]: -sign * weight for one, weight in parts[seed]}
        for seed in seeds
    }
    return values, trials, unequal


def _between(kept: float, curve: Sequence[Selected], seed: int) -> list[tuple[Selected, float]]:
    """The points of the control's curve from which its score is interpolated, with their weights."""
    weights = interpolation(kept, [one.kept[seed] for one in curve])
    return [(curve[index], weight) for index, weight in weights.items()]


def interpolation(kept: float, curve: Sequence[float]) -> Mapping[int, float]:
    """The weights of linear interpolation in log(1 + parameters); none outside the curve.

    Args:
        kept: parameters.
        curve: parameters of the curve's points, in any order.
    Returns:
        Index of a point -> its weight.
    Example:
        >>> interpolation(0, [0, 99, 9999]), interpolation(10000, [0, 99, 9999])
        ({0: 1.0}, {})
    """
    x = {index: math.log1p(parameters) for index, parameters in enumerate(curve)}
    at = math.log1p(kept)
    below = max((index for index in x if x[index] <= at), key=x.__getitem__, default=None)
    above = min((index for index in x if x[index] >= at), key=x.__getitem__, default=None)
    if below is None or above is None:
        return {}
    if x[above] == x[below]:
        return {below: 1.0}
    share = (at - x[below]) / (x[above] - x[below])
    return {below: 1 - share, above: share}
