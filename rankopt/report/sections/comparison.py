"""Paired differences between every allocator and the control: for the study, and for every task and budget."""

from __future__ import annotations

import math

import pandas as pd

from rankopt.analysis.frame import CONTROL
from rankopt.core.text import plural
from rankopt.report.base import Block, Section, Table
from rankopt.report.chart import Axis, Chart, Curves, Series
from rankopt.report.evidence import Evidence
from rankopt.report.formatting import METRICS, between, spans

COLUMNS = {
    "setting": "task",
    "budget": "mean rank",
    "allocator": "allocator",
    "difference": "difference",
    "low": "low",
    "high": "high",
    "over_examples": "over examples",
    "over_both": "over seeds and examples",
    "mcnemar": "McNemar p",
    "verdict": "verdict",
    "p_holm": "p (Holm)",
    "power": "detectable",
    "needed": "seeds needed",
    "at_budget": "difference at equal budget",
    "kept": "parameters",
    "control_kept": f"{CONTROL} parameters",
    "score": "report score",
    "control": f"{CONTROL} report score",
    "n": "seeds",
    "test": "test",
}
FORMATS = {
    "mean rank": "g", "report score": ".3f", f"{CONTROL} report score": ".3f", "difference": "+z.3f",
    "low": "+z.3f", "high": "+z.3f", "p (Holm)": ".2g", "McNemar p": ".2g",
    "difference at equal budget": "+z.3f", "parameters": ",.0f", f"{CONTROL} parameters": ",.0f",
    "seeds needed": ",.0f",
}  # fmt: skip

EXPLANATION = (
    "Difference: mean paired difference of report scores. These verdicts and the answer's are one family: the "
    "probability of any wrong one is at most 5% (Holm's correction; 80% of it for the whole study). Interval: inverts "
    "the test at the level at which it was made, so it excludes zero exactly where the verdict is better or worse. "
    "Test: paired t-test, with the degrees of freedom of the task that has the fewest. Few seeds say little about a "
    "method's variance, so the variances of all methods of a task are estimated together, each between its own and the "
    "common one (Smyth 2004). Sign flips over all pairs where a training collapsed, or where several tasks give at "
    "least nine pairs and a t-test would have fewer degrees of freedom. Detectable: the smallest true "
    "difference that this many seeds detect with 80% power, with its own 95% interval. Seeds needed: those that would "
    "detect the difference seen here, if it is the true one. n/a: cannot be computed, "
    "or an interval that excludes no difference that the metric can show."
)
EXAMPLES = (
    " Over examples: an interval at the same level for these very trainings on other examples of the same kind, by a "
    "paired bootstrap. Over seeds and examples: for other seeds and other examples. McNemar p: of equal accuracies of "
    "these trainings, not corrected for the number of tests."
)
NO_EXAMPLES = (
    " Intervals over examples need the predictions of both sides on the same examples, and a metric that is not "
    "measured on generated text; {missing} lack{s} them."
)


class Comparison(Section):
    """Is an allocator better than the control, and could these seeds detect it?"""

    def block(self, evidence: Evidence) -> Block | None:
        if not evidence.settings:
            return None
        title = f"Differences to {CONTROL}"
        cells, arms = evidence.comparison.cells, evidence.comparison.arms
        if cells.empty:
            return Block(title, text=(f"No trial has the same task and budget as a trial of {CONTROL}.",))
        study = arms.assign(setting=arms["scope"].where(arms["scope"] != "", "all tasks"), budget=float("nan"))
        tables = [Table(_frame(evidence, cells), FORMATS, "By task and budget")]
        if len(arms) < len(cells):
            whole = _frame(evidence, study).drop(columns=["mean rank"])
            tables.insert(0, Table(whole, FORMATS, "The whole study"))
        points = evidence.points
        without = set(points.loc[points["budget"].isna(), "allocator"]) & set(cells["allocator"])
        nearest = f" (of a method without ranks: the budget of {CONTROL} with the nearest size)" if without else ""
        text = f"Each row pairs trials with the same task, budget and seed{nearest}. {EXPLANATION}{_examples(cells)}"
        return Block(title, text=(text,), tables=tuple(tables), charts=(_chart(evidence, cells, study),))


def _examples(cells: pd.DataFrame) -> str:
    """What the intervals over examples are, and how many comparisons have none."""
    missing = int(cells["examples"].isna().sum())
    text = EXAMPLES if missing < len(cells) else ""
    if missing:
        text += NO_EXAMPLES.format(missing=plural(missing, "comparison"), s="s" if missing == 1 else "")
    return text


def _frame(evidence: Evidence, rows: pd.DataFrame) -> pd.DataFrame:
    """The columns that differ between rows or say something."""
    power = [
        "beyond the metric's range" if math.isinf(row.detectable)
        else "n/a" if math.isnan(row.detectable)
        else f"{row.detectable:.3f} ({_reach(row.detectable_low)} to {_reach(row.detectable_high)})"
        for row in rows.itertuples()
    ]  # fmt: skip
    rows = rows.assign(power=power, over_examples=spans(rows, "examples"), over_both=spans(rows, "both"))
    frame = rows[list(COLUMNS)].rename(columns=COLUMNS)
    for column, key in ((f"{CONTROL} configuration", "control_key"), ("configuration", "key")):
        if key in rows and any(words := [evidence.words(row, key) for _, row in rows.iterrows()]):
            frame.insert(3, column, words)
    same = (rows["difference"] - rows["at_budget"]).abs().fillna(0) < 1e-9
    hidden = [COLUMNS["at_budget"]] if same.all() else []
    if (rows["kept"] - rows["control_kept"]).abs().fillna(0).max() < 1:
        hidden.append(COLUMNS["control_kept"])
    hidden += [COLUMNS[name] for name in ("over_examples", "over_both") if not any(rows[name])]
    if rows["mcnemar"].isna().all():
        hidden.append(COLUMNS["mcnemar"])
    return frame.drop(columns=hidden)


def _reach(value: float) -> str:
    return "beyond" if math.isinf(value) else f"{value:.3f}"


def _chart(evidence: Evidence, cells: pd.DataFrame, study: pd.DataFrame) -> Chart:
    panels = [_panel(evidence, str(setting), group) for setting, group in cells.groupby("setting", sort=True)]
    if len(study) < len(cells):
        panels = [*(_panel(evidence, str(name), rows) for name, rows in study.groupby("setting", sort=True)), *panels]
    caption = (
        f"Mean paired difference of report scores to {CONTROL}, with the interval of its test; positive is better."
    )
    if any(math.isnan(error) for panel in panels for one in panel.series for error in one.error):
        caption += " A marker without a bar has too few seeds for an interval."
    return Chart("differences", f"Differences to {CONTROL}", caption, tuple(panels))


def _panel(evidence: Evidence, title: str, rows: pd.DataFrame) -> Curves:
    allocators, budgets = sorted(set(rows["allocator"])), sorted(set(rows["budget"].fillna(-1)))
    series = []
    for index, allocator in enumerate(allocators):
        own = rows[(rows["allocator"] == allocator) & rows["difference"].notna()].sort_values("budget")
        # one band of height 1 per budget, in which the allocators are stacked
        y = [
            budgets.index(budget) + 0.7 * ((index + 0.5) / len(allocators) - 0.5) for budget in own["budget"].fillna(-1)
        ]
        hover = [
            f"{allocator}{f', mean rank {row.budget:g}' if row.budget == row.budget else ''}\n{row.difference:+.3f} "
            f"({', '.join(filter(None, (between(row.low, row.high), plural(row.n, 'seed'))))})\n{row.verdict}"
            for row in own.itertuples()
        ]
        below, above = tuple(own["difference"] - own["low"]), tuple(own["high"] - own["difference"])
        x = tuple(own["difference"])
        series.append(
            Series(allocator, evidence.styles[allocator], "interval", x, tuple(y), above, tuple(hover), below=below)
        )
    metrics = set(evidence.points.loc[evidence.points["setting"].isin([title]) | (title == "all tasks"), "metric"])
    metric = metrics.pop() if len(metrics) == 1 else "score"
    ticks = tuple((float(index), f"rank {budget:g}" if budget >= 0 else "") for index, budget in enumerate(budgets))
    y_axis = Axis("", ticks=ticks, limits=(len(budgets) - 0.5, -0.5))
    return Curves(title, tuple(series), Axis(f"difference in {METRICS.get(metric, metric)}"), y_axis)
