"""Every allocator over all tasks of a study: one row per allocator."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rankopt.analysis.comparison import RANGES
from rankopt.analysis.critical_difference import Ranking, critical_difference
from rankopt.analysis.curve_summaries import areas
from rankopt.analysis.curves import Curve, common_reach
from rankopt.analysis.frame import CONTROL
from rankopt.analysis.over_tasks import (
    interquartile_mean,
    performance_profile,
    probability_of_improvement,
    shared_tasks,
    stratified_interval,
)
from rankopt.analysis.statistics import NAN

ROWS = [
    "allocator", "tasks", "runs", "iqm", "iqm_low", "iqm_high", "improvement", "improvement_low", "improvement_high",
    "mean_rank",
]  # fmt: skip
THRESHOLDS = 101


class TaskSummaries(NamedTuple):
    """Aggregates over tasks.

    Attributes:
        rows: interquartile mean, probability of improvement over the control, mean rank; a row per allocator.
        thresholds: scores at which the profiles are taken; empty where the tasks' scores cannot be averaged.
        profiles: allocator -> share of runs above each threshold.
        ranking: critical differences; None with fewer than three allocators or tasks.
    """

    rows: pd.DataFrame
    thresholds: NDArray[np.float64]
    profiles: dict[str, NDArray[np.float64]]
    ranking: Ranking | None


def summarize_tasks(curves: Sequence[Curve], control: str = CONTROL) -> TaskSummaries | None:
    """Aggregate the runs of several tasks.

    A run is a seed at a task, and its score the AURAC of its curve, or with one budget the score there; negated where
    lower is better. Only tasks that all allocators have are used. Scores of different tasks are averaged only where
    every metric has a range.

    Args:
        curves: from `curves.curves`.
        control: label of the control.
    Returns:
        None with fewer than two tasks or allocators.
    """
    of_curves: dict[str, dict[str, list[float]]] = {}
    for setting, group in groupby(curves, lambda curve: curve.setting):
        for curve, scores in _runs(list(group)):
            of_curves.setdefault(curve.allocator, {})[setting] = scores
    most = max(map(len, of_curves.values()), default=0)
    runs = shared_tasks({name: tasks for name, tasks in of_curves.items() if len(tasks) == most})
    tasks = len(next(iter(runs.values()), []))
    if tasks < 2 or len(runs) < 2:
        return None
    ranking = critical_difference({name: [float(np.mean(task)) for task in one] for name, one in runs.items()})
    averaged = all(curve.metric in RANGES for curve in curves)
    rows = []
    for name, one in runs.items():
        row = {"allocator": name, "tasks": tasks, "runs": sum(map(len, one)), "iqm": NAN, "improvement": NAN}
        if averaged:
            row["iqm"] = float(interquartile_mean(one))
            row["iqm_low"], row["iqm_high"] = stratified_interval(interquartile_mean, one)
        if control in runs and name != control:
            row["improvement"] = float(probability_of_improvement(one, runs[control]))
            ends = stratified_interval(probability_of_improvement, one, runs[control])
            row["improvement_low"], row["improvement_high"] = ends
        row["mean_rank"] = ranking.ranks[name] if ranking else NAN
        rows.append(row)
    everything = [score for one in runs.values() for task in one for score in task]
    margin = 0.02 * (max(everything) - min(everything))  # a profile starts at 1
    thresholds = np.linspace(min(everything) - margin, max(everything), THRESHOLDS) if averaged else np.array([])
    profiles = {name: performance_profile(one, thresholds.tolist()) for name, one in runs.items()} if averaged else {}
    return TaskSummaries(pd.DataFrame(rows, columns=ROWS), thresholds, profiles, ranking)


def _runs(curves: Sequence[Curve]) -> list[tuple[Curve, list[float]]]:
    """The score of every seed of the curves of one task, without curves that do not compare with the others."""
    reach = common_reach(curves)
    one_budget = all(curve.budgets == curves[0].budgets for curve in curves) and len(curves[0].budgets) == 1
    found = []
    for curve in curves:
        scores = curve.scores[:, 0].tolist() if one_budget else areas(curve, reach)
        if not np.isnan(scores).any():
            found.append((curve, [curve.sign * score for score in scores]))
    return found
