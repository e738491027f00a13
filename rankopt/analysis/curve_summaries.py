"""Every trade-off curve as a few numbers with intervals: one row per setting and allocator."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from rankopt.analysis.aurac import aurac
from rankopt.analysis.budget_at_score import budget_at_score
from rankopt.analysis.curves import Curve, common_reach
from rankopt.analysis.frame import CONTROL
from rankopt.analysis.front_probability import front_probability
from rankopt.analysis.pareto import hypervolume
from rankopt.analysis.statistics import NAN, summarize

SUMMARIES = [
    "setting", "allocator", "n", "low_parameters", "high_parameters", "aurac", "aurac_low", "aurac_high",
    "at_parameters", "at_score", "at_low", "at_high", "target", "needed", "needed_low", "needed_high", "hypervolume",
    "hypervolume_low", "hypervolume_high",
]  # fmt: skip
FRONT = ["setting", "allocator", "budget", "kept", "score", "front_probability"]


class Summaries(NamedTuple):
    """`curves` has a row per setting and allocator, `points` one per setting, allocator and budget."""

    curves: pd.DataFrame
    points: pd.DataFrame


def summarize_curves(curves: Sequence[Curve], control: str = CONTROL) -> Summaries:
    """AURAC, score at a budget, budget at a score, hypervolume, and the probability of being on the front.

    Means over seeds with 95 % t-intervals; budgets at a score invert such intervals, see `budget_at_score`. AURAC is
    taken over the parameters that all curves of a setting cover (`low_parameters` to `high_parameters`). `at_score` is
    the score at `at_parameters`, those of the control's middle budget, and `needed` the parameters for `target`, the
    control's mean score there. The hypervolume is that in log(1 + parameters), relative to the box between the best
    score at the fewest parameters and the reference point: the lowest mean score at twice the most parameters.

    Args:
        curves: from `curves.curves`.
        control: label of the control.
    """
    rows: list[dict[str, Any]] = []
    points: list[dict[str, Any]] = []
    for setting, group in groupby(curves, lambda curve: curve.setting):
        of_setting = list(group)
        reach, at = common_reach(of_setting), _middle(of_setting, control)
        targets = [float(one.between([at]).mean()) for one in of_setting if one.allocator == control]
        target = targets[0] if targets else NAN
        box = _box(of_setting)
        for curve, probabilities in zip(of_setting, front_probability(of_setting), strict=True):
            about = {"setting": setting, "allocator": curve.allocator}
            rows.append(
                {
                    **about, "n": len(curve.seeds), **_area(curve, reach), "at_parameters": at,
                    **_spread("at", curve.between([at])[:, 0].tolist(), "at_score"), "target": target,
                    **_needed(curve, target),
                    **_spread("hypervolume", _hypervolumes(curve, *box), least=0.0),
                }
            )  # fmt: skip
            means = zip(curve.budgets, curve.kept.mean(0), curve.scores.mean(0), probabilities, strict=True)
            points += [about | dict(zip(FRONT[2:], map(float, point), strict=True)) for point in means]
    return Summaries(pd.DataFrame(rows, columns=SUMMARIES), pd.DataFrame(points, columns=FRONT))


def _middle(curves: Sequence[Curve], control: str) -> float:
    """The parameters of the control's middle budget, within what all curves cover; NaN without a common range."""
    reach = common_reach(curves)
    if reach is None:
        return NAN
    budgets = next((one.kept.mean(0) for one in curves if one.allocator == control), np.array(reach))
    return min(max(float(budgets[(len(budgets) - 1) // 2]), reach[0]), reach[1])


def _area(curve: Curve, reach: tuple[float, float] | None) -> dict[str, float]:
    low, high = reach or (NAN, NAN)
    return {"low_parameters": low, "high_parameters": high} | _spread("aurac", areas(curve, reach))


def areas(curve: Curve, reach: tuple[float, float] | None) -> list[float]:
    """AURAC of every seed; NaN where the curve does not cover the range."""
    return [aurac(kept, scores, *reach) if reach else NAN for kept, scores in zip(*_lists(curve), strict=True)]


def _needed(curve: Curve, target: float) -> dict[str, float]:
    found = budget_at_score(curve, target) if not math.isnan(target) else (NAN, NAN, NAN)
    return dict(zip(("needed", "needed_low", "needed_high"), found, strict=True))


def _spread(name: str, values: Sequence[float], mean: str = "", least: float = -math.inf) -> dict[str, float]:
    """Mean and interval; no value is below `least`."""
    found = summarize(values)
    return {
        mean or name: found.mean,
        f"{name}_low": max(found.low, least) if found.n > 1 else NAN,
        f"{name}_high": found.high,
    }


def _box(curves: Sequence[Curve]) -> tuple[float, float, tuple[float, float]]:
    """The fewest parameters, as a logarithm, the best mean gain, and the reference point."""
    kept = [value for curve in curves for value in curve.kept.mean(0)]
    gains = [value for curve in curves for value in curve.sign * curve.scores.mean(0)]
    return math.log1p(min(kept)), max(gains), (math.log1p(2 * max(kept)), min(gains))


def _hypervolumes(curve: Curve, fewest: float, best: float, reference: tuple[float, float]) -> list[float]:
    """The share of the box that each seed's points dominate; NaN where all mean scores are equal."""
    most, least = reference
    box = (most - fewest) * (best - least)
    return [
        hypervolume([math.log1p(value) for value in kept], [curve.sign * value for value in scores], reference) / box
        if box > 0
        else NAN
        for kept, scores in zip(*_lists(curve), strict=True)
    ]


def _lists(curve: Curve) -> tuple[list[list[float]], list[list[float]]]:
    return curve.kept.tolist(), curve.scores.tolist()
