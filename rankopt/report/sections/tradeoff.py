"""The trade-off curve: score against kept parameters."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pandas as pd

from rankopt.analysis.frame import CONTROL
from rankopt.report.base import Block, Section
from rankopt.report.chart import Axis, Chart, Curves, Series
from rankopt.report.evidence import Evidence
from rankopt.report.formatting import KEPT, compact, span, with_error
from rankopt.report.palette import NEUTRAL

SAME_COST = 1.05
"""Points whose costs differ by at most this ratio count as equally expensive: budgets are rarely used up exactly."""

FULL = "full"
"""The tuner whose score is a line: what it stores is another model, far to the right of everything else."""

MOST_TICKS = 6
"""Budgets that an axis marks; more could not be read."""

LOG_FROM = 8.0
"""The ratio of largest to smallest x from which the axis is logarithmic."""


class TradeOff(Section):
    """Which score does each allocator reach with how many parameters?"""

    def block(self, evidence: Evidence) -> Block | None:
        if not evidence.settings:
            return None
        panels = tuple(_panel(evidence, setting) for setting in evidence.settings)
        return Block("Trade-off curve", charts=(Chart("trade-off", "Trade-off curve", _caption(evidence), panels),))


def _caption(evidence: Evidence) -> str:
    seeds = evidence.chosen["n"]
    parts = ["One seed, hence no error bars."]
    if seeds.max() > 1:
        shown = span(int(seeds.min()), int(seeds.max()), "seed")
        parts = [f"Mean over {shown}; error bars are one standard error over seeds."]
    if not evidence.points["own"].all():
        parts.append(
            " Thin dotted lines: one training evaluated at several ranks (largest budget only; of points at equal "
            "cost, the one with the best search score)."
        )
    if not evidence.study.listed:
        parts.append(
            " Each faint marker is a configuration of the search at its report score. The dashed Pareto front was "
            "chosen by search scores, so other markers can lie above it by chance."
        )
        if evidence.study.constraints:
            parts.append(
                f" It has no configuration of more than {evidence.study.constraints['parameters']:,} parameters."
            )
    elif len(evidence.chosen) < len(evidence.averages):
        parts.append(
            " Faint markers: other configurations. The best configuration of each allocator and the dashed Pareto "
            "front were chosen by search scores and are shown at their report scores."
        )
    return "".join(parts)


def _panel(evidence: Evidence, setting: str) -> Curves:
    averages = evidence.averages[evidence.averages["setting"] == setting]
    # proposals differ in more than their budget, so a line through the best of each budget would mislead
    joined = averages["chosen"].astype(bool) & evidence.study.listed
    chosen = averages[averages["chosen"].astype(bool)]
    series = [
        *_cloud(evidence, averages[~joined]),
        *_lines(evidence, averages[joined & (averages["name"] != FULL)]),
        *([] if joined.all() else _front(evidence, setting)),
        *_nested(evidence, setting),
    ]
    full = averages.loc[averages["name"] == FULL, "kept"]
    xs = [x for one in series for x in one.x] or full.tolist()
    series += _references(averages[joined & (averages["name"] == FULL)], xs)
    log = min(xs) > 0 and max(xs) / min(xs) >= LOG_FROM
    ticks = _ticks(chosen)
    if len(ticks) == 1 and len({round(x) for x in xs}) > len(chosen):
        ticks = ()  # dotted points spread along an axis that one budget does not mark
    x = Axis(KEPT, log, True, ticks, _limits(xs, log))
    return Curves(setting, tuple(series), x, Axis(evidence.metric(setting)))


def _lines(evidence: Evidence, chosen: pd.DataFrame) -> Iterator[Series]:
    for allocator, rows in chosen.groupby("allocator", sort=True):
        rows = rows.sort_values(["kept", "budget"])
        hover = [
            f"{allocator}{_told(evidence, row)}\n{row.kept:,.0f} parameters{_mean_rank(row.mean_rank)}"
            f"\n{with_error(row.score, row.error)} ({span(row.n, row.n, 'seed')})"
            for row in rows.itertuples()
        ]
        yield Series(
            allocator, evidence.styles[allocator], "line",
            tuple(rows["kept"]), tuple(rows["score"]), tuple(rows["error"]), tuple(hover),
        )  # fmt: skip


def _references(rows: pd.DataFrame, xs: list[float]) -> Iterator[Series]:
    """A line at the score of full fine-tuning."""
    for row in rows.itertuples():
        ends = (min(xs), max(xs))
        told = f"full fine-tuning, {row.kept:,.0f} parameters\n{with_error(row.score, row.error)}"
        yield Series("full fine-tuning", NEUTRAL, "front", ends, (row.score, row.score), (), (told, told))


def _told(evidence: Evidence, row: Any) -> str:
    words = evidence.words(row._asdict())
    return f"\n{words}" if words else ""


def _mean_rank(rank: float) -> str:
    return "" if math.isnan(rank) else f", mean rank {rank:.3g}"


def _cloud(evidence: Evidence, others: pd.DataFrame) -> Iterator[Series]:
    for allocator, rows in others.groupby("allocator", sort=True):
        hover = [
            f"{allocator}{_told(evidence, row)}\n{row.kept:,.0f} parameters\n{row.score:.3f}"
            for row in rows.itertuples()
        ]
        yield Series(
            allocator, evidence.styles[allocator], "cloud", tuple(rows["kept"]), tuple(rows["score"]), (), tuple(hover)
        )


def _front(evidence: Evidence, setting: str) -> Iterator[Series]:
    best = evidence.front(setting)
    if len(best):
        yield Series("Pareto front", NEUTRAL, "front", tuple(best["kept"]), tuple(best["score"]))


def _nested(evidence: Evidence, setting: str) -> Iterator[Series]:
    extra = evidence.points[(evidence.points["setting"] == setting) & ~evidence.points["own"].astype(bool)]
    for allocator in sorted(set(extra["allocator"])):
        budget = extra.loc[extra["allocator"] == allocator, "budget"].max()
        keys = evidence.runs(setting, budget, allocator)["key"]
        rows = _one_per_cost(extra[extra["key"].isin(keys)])
        if rows:
            yield Series(
                allocator, evidence.styles[allocator], "dotted",
                tuple(kept for kept, _, _ in rows), tuple(score for _, score, _ in rows), (),
                tuple(f"{allocator}, point {name}\n{kept:,.0f} parameters\n{s:.3f}" for kept, s, name in rows),
            )  # fmt: skip


def _one_per_cost(points: pd.DataFrame) -> list[tuple[float, float, str]]:
    """(parameters, report score, label) of points, means over seeds; at equal cost the one of best search score."""
    means = points.groupby("point")[["kept", "gain", "score"]].mean().sort_values("kept")
    found: list[pd.Series] = []
    for _, row in means.iterrows():
        if not found or row["kept"] > SAME_COST * found[-1]["kept"]:
            found.append(row)
        elif row["gain"] > found[-1]["gain"]:
            found[-1] = row
    return [(float(row["kept"]), float(row["score"]), str(row.name)) for row in found]


def _ticks(chosen: pd.DataFrame) -> tuple[tuple[float, str], ...]:
    if chosen["budget"].nunique() > MOST_TICKS:
        return ()
    ticks = []
    for budget, rows in chosen.groupby("budget"):
        # the control uses a budget exactly; other allocators may keep more or less
        kept = (rows[rows["name"] == CONTROL] if CONTROL in set(rows["name"]) else rows)["kept"].median()
        ticks.append((float(kept), f"{compact(kept)}\nrank {budget:g}"))
    return tuple(ticks) if len({text for _, text in ticks}) == len(ticks) else ()


def _limits(xs: list[float], log: bool) -> tuple[float, float]:
    low, high = min(xs), max(xs)
    if log:
        margin = (high / low) ** 0.06
        return low / margin, high * margin
    margin = 0.06 * (high - low) or 0.25 * (high or 1)
    return low - margin, high + margin
