"""Every allocator against the control, paired."""

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
    "score": "score",
    "control": CONTROL,
    "n": "seeds",
}
FORMATS = {
    "mean rank": "g", "score": ".3f", CONTROL: ".3f", "difference": "+z.3f", "95% low": "+z.3f", "95% high": "+z.3f",
    "p (Holm)": ".2g", "detectable": ".3f",
}  # fmt: skip


class Comparison(Section):
    """Is it better than the control, and could these seeds have told?"""

    def block(self, evidence: Evidence) -> Block | None:
        if not evidence.settings:
            return None
        rows = evidence.comparisons
        title = f"Differences to {CONTROL}"
        if rows.empty:
            return Block(title, text=(f"No trial shares its task and budget with a trial of {CONTROL}.",))
        table = Table(rows[list(COLUMNS)].rename(columns=COLUMNS), FORMATS)
        return Block(title, text=(_text(rows),), tables=(table,), charts=(_chart(evidence, rows),))


def _text(rows: pd.DataFrame) -> str:
    pairs = "Each row pairs trials with the same task, budget and seed."
    family = int(rows["p"].notna().sum())
    if not family:
        return f"{pairs} With one shared seed, or no spread over seeds, nothing can be tested: n/a."
    return (
        f"{pairs} Interval: 95% t-interval of the paired difference. p: two-sided paired t-test, Holm's correction "
        f"over {plural(family, 'comparison')}. Detectable: the true difference that this many seeds would find with "
        f"80% power (two-sided 5%, before the correction), from their own spread. Verdict: not seen is a mean "
        f"difference below the detectable one; not significant is a larger one that does not survive the correction. "
        f"What one seed, or seeds without spread, cannot give is n/a."
    )


def _chart(evidence: Evidence, rows: pd.DataFrame) -> Chart:
    panels = tuple(_panel(evidence, setting, group) for setting, group in rows.groupby("setting", sort=True))
    caption = f"Mean paired difference to {CONTROL} and its 95% t-interval; right of the line is better."
    if rows["low"].isna().any():
        caption += " A marker without a bar has one shared seed: its spread is unknown."
    return Chart("differences", f"Differences to {CONTROL}", caption, panels)


def _panel(evidence: Evidence, setting: str, rows: pd.DataFrame) -> Curves:
    allocators, budgets = sorted(set(rows["allocator"])), sorted(set(rows["budget"]))
    series = []
    for place, allocator in enumerate(allocators):
        own = rows[rows["allocator"] == allocator].sort_values("budget")
        # a band of height 1 per budget, the allocators below one another inside it
        y = [budgets.index(budget) + 0.7 * ((place + 0.5) / len(allocators) - 0.5) for budget in own["budget"]]
        hover = [
            f"{allocator}, mean rank {row.budget:g}<br>{row.difference:+.4f} ({plural(row.n, 'seed')})<br>{row.verdict}"
            for row in own.itertuples()
        ]
        x, error = tuple(own["difference"]), tuple((own["high"] - own["low"]) / 2)
        series.append(Series(allocator, evidence.styles[allocator], "interval", x, tuple(y), error, tuple(hover)))
    metric = evidence.averages.loc[evidence.averages["setting"] == setting, "metric"].iloc[0]
    ticks = tuple((float(place), f"rank {budget:g}") for place, budget in enumerate(budgets))
    y_axis = Axis("", ticks=ticks, limits=(len(budgets) - 0.5, -0.5))
    return Curves(setting, tuple(series), Axis(f"difference in {METRICS.get(metric, metric)}"), y_axis)
