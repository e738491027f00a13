"""The cost of the trials."""

from __future__ import annotations

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
        groups = own.groupby(["setting", "allocator", "budget"], dropna=False, sort=True)
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
        costs.columns = ["task", "allocator", "mean rank", "trials", *list(FORMATS)[1:]]
        total = float(own["train_seconds"].sum() + own["evaluate_seconds"].sum())
        text = (
            "Means per trial. Wall-clock seconds depend on the device (see Provenance). Padding: share of all tokens. "
            "Adapter peak and head: parameters trained. Total of all complete trials: "
            f"{total / 60:,.1f} minutes.",
        )
        return Block("Cost", text=text, tables=(Table(costs, FORMATS),))
