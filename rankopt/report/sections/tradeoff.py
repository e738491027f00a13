"""Score against kept parameters: the curve a study is run for."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from rankopt.analysis.frame import CONTROL
from rankopt.report.base import Block, Section
from rankopt.report.chart import Axis, Chart, Curves, Series
from rankopt.report.evidence import Evidence
from rankopt.report.formatting import KEPT, compact, metric_label, span, with_error
from rankopt.report.palette import NEUTRAL

SAME_COST = 1.05
"""Up to this ratio points count as of one cost: a knapsack may leave a little over."""

LOG_FROM = 8.0
"""A log axis helps from this ratio of the largest to the smallest x."""


class TradeOff(Section):
    """What does a parameter buy, and for whom?"""

    def block(self, evidence: Evidence) -> Block | None:
        if not evidence.settings:
            return None
        panels = tuple(_panel(evidence, setting) for setting in evidence.settings)
        return Block("Trade-off curve", charts=(Chart("trade-off", "Trade-off curve", _caption(evidence), panels),))


def _caption(evidence: Evidence) -> str:
    seeds = evidence.chosen["n"]
    parts = ["One seed, so no error bars."]
    if seeds.max() > 1:
        shown = span(int(seeds.min()), int(seeds.max()), "seed")
        parts = [f"Mean over {shown}; error bars are one standard error over seeds."]
    if evidence.chosen["allocator"].nunique() > 1:
        parts.append(" Markers that share an x are set side by side by up to 2% of the axis.")
    if not evidence.points["own"].all():
        parts.append(
            " Thin dotted lines: one training evaluated at several ranks, largest budget only; of points at one cost, "
            "the best on the search split."
        )
    if not evidence.study.listed:
        parts.append(
            " Every configuration of the search at its reported score; the dashed Pareto front was chosen on the "
            "search split, so a better-looking marker beside it may be luck."
        )
        if evidence.study.constraints:
            parts.append(f" What keeps more than {evidence.study.constraints['parameters']:,} parameters is not on it.")
    elif len(evidence.chosen) < len(evidence.averages):
        parts.append(
            " Faint markers: other configurations; the marked one of each allocator and the dashed Pareto front were "
            "chosen on the search split and are shown at their reported scores."
        )
    return "".join(parts)


def _panel(evidence: Evidence, setting: str) -> Curves:
    averages = evidence.averages[evidence.averages["setting"] == setting]
    # a sampled search differs in more than its budget, so joining its best of every budget would promise a curve
    joined = averages["chosen"].astype(bool) & evidence.study.listed
    chosen = averages[averages["chosen"].astype(bool)]
    series = [
        *_cloud(evidence, averages[~joined]),
        *_lines(evidence, averages[joined]),
        *([] if joined.all() else _front(evidence, setting)),
        *_nested(evidence, setting),
    ]
    xs = [x for one in series for x in one.x]
    first = averages.iloc[0]
    log = min(xs) > 0 and max(xs) / min(xs) >= LOG_FROM
    ticks = _ticks(chosen)
    if len(ticks) == 1 and len({round(x) for x in xs}) > len(chosen):
        ticks = ()  # nested points spread along an axis that one budget does not mark
    x = Axis(KEPT, log, True, ticks, _limits(xs, log))
    return Curves(setting, tuple(_side_by_side(series, x)), x, Axis(metric_label(first["metric"], first["split"])))


def _lines(evidence: Evidence, chosen: pd.DataFrame) -> Iterator[Series]:
    for allocator, rows in chosen.groupby("allocator", sort=True):
        rows = rows.sort_values(["kept", "budget"])
        hover = [
            f"{allocator}<br>{row.kept:,.0f} parameters, mean rank {row.mean_rank:.3g}"
            f"<br>{with_error(row.score, row.error)} ({span(row.n, row.n, 'seed')})"
            for row in rows.itertuples()
        ]
        yield Series(
            allocator, evidence.styles[allocator], "line",
            tuple(rows["kept"]), tuple(rows["score"]), tuple(rows["error"]), tuple(hover),
        )  # fmt: skip


def _cloud(evidence: Evidence, others: pd.DataFrame) -> Iterator[Series]:
    for allocator, rows in others.groupby("allocator", sort=True):
        hover = [f"{allocator}<br>{row.kept:,.0f} parameters<br>{row.score:.3f}" for row in rows.itertuples()]
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
                allocator, evidence.styles[allocator], "nested",
                tuple(kept for kept, _, _ in rows), tuple(score for _, score, _ in rows), (),
                tuple(f"{allocator}, point {name}<br>{kept:,.0f} parameters<br>{s:.3f}" for kept, s, name in rows),
            )  # fmt: skip


def _one_per_cost(points: pd.DataFrame) -> list[tuple[float, float, str]]:
    """Parameters, reported score and label of points, means over seeds; of those at one cost the best on the search
    split, so that a line through them goes forward."""
    means = points.groupby("point")[["kept", "search", "score"]].mean().sort_values("kept")
    found: list[pd.Series] = []
    for _, row in means.iterrows():
        if not found or row["kept"] > SAME_COST * found[-1]["kept"]:
            found.append(row)
        elif row["search"] > found[-1]["search"]:
            found[-1] = row
    return [(float(row["kept"]), float(row["score"]), str(row.name)) for row in found]


def _ticks(chosen: pd.DataFrame) -> tuple[tuple[float, str], ...]:
    places = []
    for budget, rows in chosen.groupby("budget"):
        # the control spends a budget exactly; an allocator may keep more or less than it
        kept = (rows[rows["name"] == CONTROL] if CONTROL in set(rows["name"]) else rows)["kept"].median()
        places.append((float(kept), f"{compact(kept)}\nrank {budget:g}"))
    # ticks at the budgets, where they are few enough to be read
    return tuple(places) if len(places) <= 6 and len({text for _, text in places}) == len(places) else ()


def _limits(xs: list[float], log: bool) -> tuple[float, float]:
    low, high = min(xs), max(xs)
    if log:
        margin = (high / low) ** 0.06
        return low / margin, high * margin
    margin = 0.06 * (high - low) or 0.25 * (high or 1)
    return low - margin, high + margin


def _side_by_side(series: list[Series], x: Axis) -> Iterator[Series]:
    """Move the markers of lines that share an x apart, symmetrically, so that their error bars can be read."""
    low, high = x.limits or (0.0, 1.0)
    lines = [one.label for one in series if one.kind == "line"]
    for one in series:
        if one.kind != "line" or len(lines) == 1:
            yield one
            continue
        place = 2 * lines.index(one.label) / (len(lines) - 1) - 1
        part = 0.02 * place
        moved = tuple(at * (high / low) ** part if x.log else at + part * (high - low) for at in one.x)
        yield Series(one.label, one.style, one.kind, moved, one.y, one.error, one.hover)
