"""The cost of the trials."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rankopt.report.base import Block, Section, Table
from rankopt.report.evidence import Evidence

FORMATS = {
    "mean rank": "g", "train s": ",.1f", "evaluate s": ",.1f", "steps": ",.0f", "tokens": ",.0f",
    "padding": ".1%", "adapter peak": ",.0f", "head": ",.0f",
}  # fmt: skip


class CostTable(Section):
    """How much time, how many tokens and how many trained parameters did the trials take?"""

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
        return Block("Cost", text=text, tables=(Table(costs, FORMATS), *_machine(groups)))


def _machine(groups: Any) -> tuple[Table, ...]:
    """Speed and memory, as far as the results have them."""
    found = groups.agg(tokens=("tokens", "sum"), seconds=("train_seconds", "sum")).reset_index()
    table = found[["setting", "allocator", "budget"]].set_axis(["task", "allocator", "mean rank"], axis=1)
    table["training tokens/s"] = found["tokens"] / found["seconds"]
    for column, (name, scale) in MACHINE.items():
        if name in groups.obj:
            table[column] = scale(groups[name].mean().reset_index(drop=True))
    return (Table(table, SPEEDS, title="Speed and memory"),) if len(table.columns) > 4 else ()


def _per_second(seconds: Any) -> Any:
    return 1 / seconds


MACHINE: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "host MB": ("host_memory", lambda size: size / 1e6),
    "device MB": ("device_memory", lambda size: size / 1e6),
    "adapter kB": ("adapter_bytes", lambda size: size / 1e3),
    "latency ms": ("latency_seconds", lambda seconds: seconds * 1e3),
    "merged latency ms": ("merged_latency_seconds", lambda seconds: seconds * 1e3),
    "examples/s": ("example_seconds", _per_second),
    "merged examples/s": ("merged_example_seconds", _per_second),
}
"""Column -> the cost that it shows, and its conversion."""
SPEEDS = {"mean rank": "g", "training tokens/s": ",.0f"} | dict.fromkeys(MACHINE, ",.1f")
