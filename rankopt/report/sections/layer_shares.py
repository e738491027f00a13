"""Energy and sensitivity of a super-network's layers."""

from __future__ import annotations

from rankopt.analysis.oneshot import measured_shares
from rankopt.report.base import Block, Section
from rankopt.report.evidence import Evidence
from rankopt.report.shares import shares_chart, shares_table


class LayerShares(Section):
    """Which module types and which depths carry the update that a super-network learned?"""

    def block(self, evidence: Evidence) -> Block | None:
        tables, charts = [], []
        for number, setting in enumerate(evidence.settings, 1):
            if shares := measured_shares(evidence.complete(setting)):
                table = shares_table(shares, "module or depth", title=setting)
                caption = "Share of each module type, and of each depth; each group sums to 100%."
                tables.append(table)
                charts.append(shares_chart(table, f"layer-shares-{number}", setting, caption, "share"))
        if not tables:
            return None
        text = (
            "Measured in the super-networks before patterns were chosen, mean over seeds. Energy: squared singular "
            "values of the trained update. Sensitivity: mean squared gradient of the loss with respect to a "
            "component's gate during recovery."
        )
        return Block("Energy and sensitivity by layer", text=(text,), tables=tuple(tables), charts=tuple(charts))
