"""Paired differences between every allocator and the control."""

from __future__ import annotations

import pandas as pd

from rankopt.analysis.frame import CONTROL
from rankopt.report.base import Block, Section, Table
from rankopt.report.chart import Axis, Chart, Curves, Series
from rankopt.report.evidence import Evidence
from rankopt.report.formatting import METRICS, plural

COLUMNS = {
    "setting": "task",
    "budget": "mean rank",
    "allocator": "allocator",
    "difference": "difference",
    "low": "95% low",
    "high": "95% high",
    "verdict": "verdict",
    "p_holm": "p (Holm)",
    "detectable": "detectable",
    "score": "report score",
    "control": f"{CONTROL} report score",
    "n": "seeds",
}
FORMATS = {
    "mean rank": "g", "report score": ".3f", f"{CONTROL} report score": ".3f", "difference": "+z.3f",
    "95% low": "+z.3f", "95% high": "+z.3f", "p (Holm)": ".2g", "detectable": ".3f",
}  # fmt: skip


class Comparison(Section):
    """Is an allocator better than the control, and could these seeds detect it?"""

    def block(self, evidence: Evidence) -> Block | None:
        if not evidence.settings:
            return None
        rows = evidence.comparisons
        title = f"Differences to {CONTROL}"
        if rows.empty:
            return Block(title, text=(f"No trial has the same task and budget as a trial of {CONTROL}.",))
        return Block(title, text=(_text(rows),), tables=(_table(evidence, rows),), charts=(_chart(evidence, rows),))


def _table(evidence: Evidence, rows: pd.DataFrame) -> Table:
    frame = rows[list(COLUMNS)].rename(columns=COLUMNS)
    for column, key in ((f"{CONTROL} configuration", "control_key"), ("configuration", "key")):
        words = [evidence.words(row, key) for _, row in rows.iterrows()]
        if any(words):
            frame.insert(3, column, words)
    return Table(frame, FORMATS)


def _text(rows: pd.DataFrame) -> str:
    pairs = "Each row pairs trials with the same task, budget and seed; scores are those of the report split."
    family = int(rows["p"].notna().sum())
    if not family:
        return f"{pairs} No test is possible with one shared seed or equal differences at every seed (n/a)."
    return (
        f"{pairs} Interval: 95% t-interval of the paired difference. p: two-sided paired t-test with Holm's correction "
        f"over {plural(family, 'comparison')}. Detectable: the smallest true difference that this many seeds would "
        "detect with 80% power (two-sided 5%, before correction), estimated from their own spread. Verdict: a mean "
        'difference below it is "below detectable"; a larger one whose p exceeds 5% is "not significant". n/a: cannot '
        "be computed with one seed or equal differences."
    )


def _chart(evidence: Evidence, rows: pd.DataFrame) -> Chart:
    panels = tuple(_panel(evidence, setting, group) for setting, group in rows.groupby("setting", sort=True))
    caption = f"Mean paired difference of report scores to {CONTROL}, with its 95% t-interval; positive is better."
    if rows["low"].isna().any():
        caption += " A marker without a bar has one shared seed, so its interval is unknown."
    return Chart("differences", f"Differences to {CONTROL}", caption, panels)


def _panel(evidence: Evidence, setting: str, rows: pd.DataFrame) -> Curves:
    allocators, budgets = sorted(set(rows["allocator"])), sorted(set(rows["budget"]))
    series = []
    for index, allocator in enumerate(allocators):
        own = rows[rows["allocator"] == allocator].sort_values("budget")
        # one band of height 1 per budget, in which the allocators are stacked
        y = [budgets.index(budget) + 0.7 * ((index + 0.5) / len(allocators) - 0.5) for budget in own["budget"]]
        hover = [
            f"{allocator}, mean rank {row.budget:g}\n{row.difference:+.4f} ({plural(row.n, 'seed')})\n{row.verdict}"
            for row in own.itertuples()
        ]
        x, error = tuple(own["difference"]), tuple((own["high"] - own["low"]) / 2)
        series.append(Series(allocator, evidence.styles[allocator], "interval", x, tuple(y), error, tuple(hover)))
    metric = evidence.averages.loc[evidence.averages["setting"] == setting, "metric"].iloc[0]
    ticks = tuple((float(index), f"rank {budget:g}") for index, budget in enumerate(budgets))
    y_axis = Axis("", ticks=ticks, limits=(len(budgets) - 0.5, -0.5))
    return Curves(setting, tuple(series), Axis(f"difference in {METRICS.get(metric, metric)}"), y_axis)
