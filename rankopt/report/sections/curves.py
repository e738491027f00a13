"""Every trade-off curve as a few numbers, and every allocator over all tasks."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from rankopt.analysis.critical_difference import Ranking
from rankopt.analysis.frame import CONTROL
from rankopt.analysis.task_summaries import TaskSummaries
from rankopt.core.text import plural
from rankopt.report.base import Block, Section, Table
from rankopt.report.chart import Axis, Chart, Curves, Series
from rankopt.report.evidence import Evidence
from rankopt.report.formatting import compact, spans
from rankopt.report.palette import NEUTRAL

ON_FRONT = 0.005
"""Smaller probabilities of being on the front are left out."""


class CurveNumbers(Section):
    """What does each allocator's whole curve amount to, on every task and over all of them?"""

    def block(self, evidence: Evidence) -> Block | None:
        if evidence.curve_summaries.curves.empty:
            return None
        tables, charts, text = [_table(evidence)], [], [_explained(evidence)]
        if tasks := evidence.task_summaries:
            tables.append(_over_tasks(tasks))
            text.append(_explained_tasks(tasks))
            charts = [*_profiles(evidence, tasks), *_ranking(evidence, tasks)]
        return Block("Curves in numbers", text=tuple(text), tables=tuple(tables), charts=tuple(charts))


def _explained(evidence: Evidence) -> str:
    rows = evidence.curve_summaries.curves
    text = (
        "Intervals are 95% t-intervals over seeds. Hypervolume: what a curve dominates in the plane of score and log "
        "parameters, up to twice the most parameters and down to the lowest mean score, divided by that area up to the "
        "best mean score; a single seed can exceed 1. On the front: the "
        "probability that the mean at a mean rank is on the Pareto front of all allocators, by a bootstrap over seeds."
    )
    if rows["aurac"].isna().all():
        return text
    return (
        "AURAC: area under the rank-accuracy curve, the mean score over log parameters, between the parameters that "
        f"all curves of a task cover. Parameters for the score of {CONTROL}: where the curve first reaches the mean "
        f"score that {CONTROL} has at its middle budget; its interval holds the parameters at which a t-test does not "
        f"tell the two apart. A curve that starts above the score needs at most the parameters given. {text}"
    )


def _table(evidence: Evidence) -> Table:
    rows = evidence.curve_summaries.curves
    points = evidence.curve_summaries.points
    frame = pd.DataFrame(
        {
            "task": rows["setting"],
            "allocator": rows["allocator"],
            "AURAC": _told(rows, "aurac"),
            "score at equal parameters": _told(rows, "at", "at_score"),
            "at parameters": [_parameters(value) for value in rows["at_parameters"]],
            f"parameters for {CONTROL}'s score": [_needed(row) for row in rows.itertuples()],
            "hypervolume": _told(rows, "hypervolume"),
            "on the front": [_front(points, row) for row in rows.itertuples()],
            "seeds": rows["n"],
        }
    )
    return Table(frame.drop(columns=[name for name in frame if not frame[name].astype(bool).any()]), title="By task")


def _told(rows: pd.DataFrame, name: str, mean: str = "") -> list[str]:
    """Means with their intervals."""
    means = rows[mean or name]
    return [
        f"{value:.3f}{f' ({reach})' if reach else ''}" if value == value else ""
        for value, reach in zip(means, spans(rows, name, sign=""), strict=True)
    ]


def _parameters(value: float) -> str:
    return "" if math.isnan(value) else "not reached" if math.isinf(value) else compact(value)


def _needed(row: Any) -> str:
    if math.isnan(row.needed):
        return ""
    ends = "" if math.isnan(row.needed_low) else f" ({_parameters(row.needed_low)} to {_parameters(row.needed_high)})"
    return f"{_parameters(row.needed)}{ends}"


def _front(points: pd.DataFrame, row: Any) -> str:
    own = points[(points["setting"] == row.setting) & (points["allocator"] == row.allocator)]
    parts = [
        f"{f'rank {budget:g}: ' if budget == budget else ''}{share:.2f}"
        for budget, share in zip(own["budget"], own["front_probability"], strict=True)
        if share > ON_FRONT
    ]
    return ", ".join(parts) or ("" if own["front_probability"].isna().all() else "never")


def _explained_tasks(tasks: TaskSummaries) -> str:
    text = (
        "Over all tasks, a run is one seed at one task, and its score the AURAC of its curve (with one budget, the "
        f"score). Better than {CONTROL}: the probability that a run beats one of {CONTROL} on a random task, ties "
        "counted half. Intervals are 95% percentile intervals of a bootstrap over seeds within tasks; with few seeds "
        "they are too narrow."
    )
    if len(tasks.thresholds):
        text += " Interquartile mean: the mean of the middle half of all runs."
    if tasks.ranking:
        verdict = "" if tasks.ranking.p <= 0.05 else ", so no difference between allocators is significant"
        text += f" Mean rank over tasks, 1 is best: Friedman's test has p = {tasks.ranking.p:.2g}{verdict}."
    return text


def _over_tasks(tasks: TaskSummaries) -> Table:
    rows = tasks.rows
    frame = pd.DataFrame(
        {
            "allocator": rows["allocator"],
            "interquartile mean": _told(rows, "iqm"),
            f"better than {CONTROL}": _told(rows, "improvement"),
            "mean rank": rows["mean_rank"],
            "tasks": rows["tasks"],
            "runs": rows["runs"],
        }
    )
    empty = [name for name in frame if frame[name].isna().all() or not frame[name].astype(bool).any()]
    return Table(frame.drop(columns=empty), {"mean rank": ".2f"}, "Over all tasks")


def _profiles(evidence: Evidence, tasks: TaskSummaries) -> list[Chart]:
    series = tuple(
        Series(name, evidence.styles[name], "step", tuple(tasks.thresholds.tolist()), tuple(shares.tolist()))
        for name, shares in tasks.profiles.items()
    )
    if not series:
        return []
    panel = Curves("all tasks", series, Axis("score"), Axis("share of runs above the score", limits=(0, 1)))
    caption = (
        "Share of the runs of all tasks whose score is above a threshold. A curve that is above another one everywhere "
        "belongs to the better allocator, whatever the threshold."
    )
    return [Chart("profiles", "Performance profiles", caption, (panel,))]


def _ranking(evidence: Evidence, tasks: TaskSummaries) -> list[Chart]:
    ranking = tasks.ranking
    if ranking is None:
        return []
    names = list(ranking.ranks)
    series = [
        Series(
            name, evidence.styles[name], "line", (ranking.ranks[name],), (float(row),), (), (_placed(name, ranking),)
        )
        for row, name in enumerate(names)
    ]
    for index, group in enumerate(ranking.groups):
        ends = (ranking.ranks[group[0]], ranking.ranks[group[-1]])
        height = len(names) + 0.4 * index
        told = f"no significant difference: {', '.join(group)}"
        series.append(Series("no difference", NEUTRAL, "step", ends, (height, height), (), (told, told), width=5.0))
    ticks = tuple((float(row), name) for row, name in enumerate(names))
    y = Axis("", ticks=ticks, limits=(len(names) + 0.4 * len(ranking.groups), -0.5))
    panel = Curves(
        "all tasks", tuple(series), Axis("mean rank over tasks (1 is best)", limits=(0.8, len(names) + 0.2)), y
    )
    caption = (
        f"Mean rank of each allocator over {plural(int(tasks.rows['tasks'].iloc[0]), 'task')}. Bars join allocators "
        f"whose ranks differ by less than Nemenyi's critical difference of {ranking.difference:.2f} at 5%"
        + ("." if ranking.p <= 0.05 else "; Friedman's test does not reject that all are equal, so one bar joins all.")
    )
    return [Chart("critical-difference", "Critical differences", caption, (panel,))]


def _placed(name: str, ranking: Ranking) -> str:
    return f"{name}\nmean rank {ranking.ranks[name]:.2f}"
