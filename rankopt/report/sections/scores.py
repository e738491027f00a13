"""The scores behind the curves."""

from __future__ import annotations

import pandas as pd

from rankopt.analysis.averages import GROUP
from rankopt.report.base import Block, Section, Table
from rankopt.report.evidence import Evidence
from rankopt.report.formatting import METRICS

AVERAGES = {
    "setting": "task", "allocator": "allocator", "budget": "mean rank asked", "mean_rank": "mean rank kept",
    "kept": "parameters kept", "n": "seeds", "score": "report score", "error": "standard error",
    "search": "search score",
}  # fmt: skip
POINTS = {
    "setting": "task", "allocator": "allocator", "budget": "mean rank asked", "seed": "seed", "point": "point",
    "mean_rank": "mean rank kept", "kept": "parameters kept", "score": "report score", "search": "search score",
    "key": "key",
}  # fmt: skip
FORMATS = {
    "mean rank asked": "g", "mean rank kept": ".2f", "parameters kept": ",.0f", "report score": ".3f",
    "standard error": ".3f", "search score": ".3f",
}  # fmt: skip
RETAINED = {"retained_before", "retained_after"}
LONG = 40


class Scores(Section):
    """Which scores were measured?"""

    def block(self, evidence: Evidence) -> Block | None:
        if not evidence.settings:
            return None
        metrics = "; ".join(f"{setting}: {evidence.metric(setting)}" for setting in evidence.settings)
        text = (
            f"Report score: the task's primary metric on the report split, mean over seeds ({metrics}). Search score: "
            "the same metric on the search split, by which configurations are chosen. data.csv has all metrics.",
        )
        averages = evidence.averages
        tables = [_averages(evidence, averages, "Means over seeds")]
        if not averages["chosen"].all() or not evidence.study.listed:
            best = pd.concat([evidence.front(setting) for setting in evidence.settings])
            tables.insert(0, _averages(evidence, best, "Pareto front, chosen on the search split"))
        tables += _other_metrics(evidence)
        points = evidence.points[list(POINTS)].rename(columns=POINTS)
        return Block("Scores", text=text, tables=(*tables, Table(points, FORMATS, "Every point", long=True)))


def _other_metrics(evidence: Evidence) -> list[Table]:
    """The means of the metrics that are not the score, for the chosen configurations; none without such metrics."""
    own = evidence.points[evidence.points["own"].astype(bool)]
    others: dict[str, pd.Series] = {}
    for split in sorted(set(own["split"])):  # the columns are named split:metric, and tasks name their splits
        for column in own.columns[own.columns.str.startswith(f"{split}:")]:
            metric = column.removeprefix(f"{split}:")
            known = own[column].where((own["split"] == split) & (own["metric"] != metric))
            others[metric] = known.combine_first(others[metric]) if metric in others else known
    others = {metric: values for metric, values in others.items() if values.notna().any()}
    if not others:
        return []
    means = own.assign(**others).groupby(GROUP, dropna=False)[list(others)].mean().reset_index()
    rows = evidence.chosen[[*GROUP, "kept", "n"]].merge(means, on=GROUP, how="left")
    shown = [column for column in AVERAGES if column in (*GROUP, "kept", "n")]
    labels = {name: METRICS.get(name, name) for name in others}
    frame = rows[[*shown, *others]].rename(columns={**AVERAGES, **labels})
    return [Table(frame, FORMATS | dict.fromkeys(labels.values(), ".3f"), "Other metrics on the report split, means")]


def _retained(evidence: Evidence, rows: pd.DataFrame) -> dict[str, list[str]]:
    """One column: the mean score on other material before training and after it."""
    own = evidence.points[evidence.points["own"].astype(bool)]
    names = own["retained_task"].dropna().unique()
    means = own.groupby(GROUP, dropna=False)[sorted(RETAINED)].mean().reset_index()
    found = rows[GROUP].merge(means, on=GROUP, how="left")
    pairs = zip(found["retained_before"], found["retained_after"], strict=True)
    shown = ["" if pd.isna(after) else f"{before:.4g} → {after:.4g}" for before, after in pairs]
    return {f"{' or '.join(names)}, before → after": shown}


def _averages(evidence: Evidence, rows: pd.DataFrame, title: str) -> Table:
    frame = rows[list(AVERAGES)].rename(columns=AVERAGES)
    if set(evidence.points) >= RETAINED:
        frame = frame.assign(**_retained(evidence, rows))
    words = [evidence.words(row) for _, row in rows.iterrows()]
    if any(words):
        frame.insert(2, "configuration", words)
        frame["key"] = rows["key"]
    return Table(frame, FORMATS, title, long=len(rows) > LONG)
