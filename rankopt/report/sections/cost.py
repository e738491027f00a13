"""The cost of the trials, and the score that it bought."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd

from rankopt.core.text import plural
from rankopt.report.base import Block, Section, Table
from rankopt.report.chart import Axis, Chart, Curves, Mark, Series
from rankopt.report.evidence import Evidence
from rankopt.report.formatting import joined, with_error

FORMATS = {
    "mean rank": "g", "train s": ",.1f", "evaluate s": ",.1f", "steps": ",.0f", "tokens": ",.0f",
    "padding": ".1%", "adapter peak": ",.0f", "head": ",.0f",
}  # fmt: skip


MOST = 500
"""Of more configurations, only those on the Pareto front are drawn."""


class Cost(Section):
    """How much time, memory and how many trained parameters did the trials take, and for which score?"""

    def block(self, evidence: Evidence) -> Block | None:
        if not evidence.settings:
            return None
        own = evidence.points[evidence.points["own"].astype(bool)]
        # of a search, one row for all configurations of an allocator
        own = own.assign(words=[evidence.words(row) if evidence.study.listed else "" for row in own.to_dict("records")])
        groups = own.groupby(["setting", "allocator", "budget", "words"], dropna=False, sort=True)
        costs = groups.agg(
            trials=("key", "size"),
            train=("train_seconds", "mean"),
            evaluate=("evaluate_seconds", "mean"),
            steps=("steps", "mean"),
            tokens=("tokens", "mean"),
            padded=("padded_tokens", "mean"),
            trained=("trained", "mean"),
            head=("head", "mean"),
        ).reset_index()
        costs["padded"] = 1 - costs["tokens"] / costs["padded"]
        costs.columns = ["task", "allocator", "mean rank", "configuration", "trials", *list(FORMATS)[1:]]
        if not costs["configuration"].any():
            del costs["configuration"]
        total = float(own["train_seconds"].sum() + own["evaluate_seconds"].sum())
        text = (
            "Means per trial. Wall-clock seconds depend on the device (see Provenance). Padding: share of all tokens. "
            "Adapter peak and head: parameters trained. Total of all complete trials: "
            f"{total / 60:,.1f} minutes.",
        )
        return Block(
            "Cost", text=text, tables=(Table(costs, FORMATS), *_machine(groups)), charts=_charts(evidence, own)
        )


def _charts(evidence: Evidence, own: pd.DataFrame) -> tuple[Chart, ...]:
    """Score against time, memory and latency, as far as the results have them."""
    memory = "device_memory" if "device_memory" in own else "host_memory"
    measured = [
        name for name in ("train_seconds", memory, "latency_seconds") if name in own and own[name].notna().any()
    ]
    means = own.groupby(["setting", "configuration"])[measured].mean()
    rows = (evidence.chosen if evidence.study.listed else evidence.averages).drop(columns="train_seconds")
    if len(rows) > MOST:
        front = pd.concat([evidence.front(setting) for setting in evidence.settings])
        rows = rows[rows.index.isin(front.index)]
    rows = rows.join(means, on=["setting", "configuration"])
    panels = tuple(
        _panel(evidence, setting, rows[rows["setting"] == setting], name)
        for setting in evidence.settings
        for name in measured
    )
    what = joined([AXES[name][0].partition(",")[0] for name in measured])
    shown = "allocator and budget" if evidence.study.listed else "configuration"
    if not evidence.study.listed and len(rows) < len(evidence.averages):
        shown += " on the Pareto front"
    caption = (
        f"Score against {what}: one marker per {shown}, means over seeds"
        f"{'; error bars are one standard error of the score' if evidence.study.listed else ''}. Memory and time are "
        "those of the machine in Provenance."
    )
    return (Chart("cost", "Score against cost", caption, panels),) if panels else ()


def _panel(evidence: Evidence, setting: str, rows: pd.DataFrame, name: str) -> Curves:
    label, scale = AXES[name]
    series = []
    for allocator, found in rows[rows[name].notna()].groupby("allocator", sort=True):
        found = found.assign(x=scale(found[name])).sort_values(["budget", "x"])
        hover = [
            f"{allocator}{f', mean rank {row.budget:g}' if row.budget == row.budget else ''}\n"
            f"{label} {row.x:{',.1f' if row.x >= 10 else '.3f'}}\n"
            f"{with_error(row.score, row.error)} ({plural(row.n, 'seed')})"
            for row in found.itertuples()
        ]
        mark: Mark = "markers" if evidence.study.listed else "cloud"
        series.append(
            Series(
                str(allocator), evidence.styles[str(allocator)], mark, tuple(found["x"]), tuple(found["score"]),
                tuple(found["error"]) if evidence.study.listed else (), tuple(hover),
            )
        )  # fmt: skip
    return Curves(f"{setting}: {label.partition(',')[0]}", tuple(series), Axis(label), Axis(evidence.metric(setting)))


def _machine(groups: Any) -> tuple[Table, ...]:
    """Speed and memory, as far as the results have them."""
    found = groups.agg(tokens=("tokens", "sum"), seconds=("train_seconds", "sum")).reset_index()
    table = found[["setting", "allocator", "budget"]].set_axis(["task", "allocator", "mean rank"], axis=1)
    table["training tokens/s"] = found["tokens"] / found["seconds"]
    for column, (name, scale) in MACHINE.items():
        if name in groups.obj:
            table[column] = scale(groups[name].mean().reset_index(drop=True))
    return (Table(table, SPEEDS, title="Speed and memory"),) if len(table.columns) > 4 else ()


def _megabytes(size: Any) -> Any:
    return size / 1e6


def _milliseconds(seconds: Any) -> Any:
    return seconds * 1e3


def _per_second(seconds: Any) -> Any:
    return 1 / seconds


AXES: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "train_seconds": ("training time, s", lambda seconds: seconds),
    "host_memory": ("peak memory of the process, MB", _megabytes),
    "device_memory": ("peak memory of the GPU, MB", _megabytes),
    "latency_seconds": ("latency of one example, ms", _milliseconds),
}
"""A cost against which scores are drawn -> its axis, and its conversion."""

MACHINE: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "host MB": ("host_memory", _megabytes),
    "device MB": ("device_memory", _megabytes),
    "adapter kB": ("adapter_bytes", lambda size: size / 1e3),
    "latency ms": ("latency_seconds", _milliseconds),
    "merged latency ms": ("merged_latency_seconds", _milliseconds),
    "examples/s": ("example_seconds", _per_second),
    "merged examples/s": ("merged_example_seconds", _per_second),
}
"""Column -> the cost that it shows, and its conversion."""
SPEEDS = {"mean rank": "g", "training tokens/s": ",.0f"} | dict.fromkeys(MACHINE, ",.1f")
