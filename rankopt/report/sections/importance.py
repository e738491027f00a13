"""Which dimensions of a search matter."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from rankopt.analysis.oneshot import measured_shares
from rankopt.report.base import Block, Section, Table
from rankopt.report.chart import Axis, Chart, Curves, Series
from rankopt.report.evidence import Evidence
from rankopt.report.palette import styles

TOLD = "Share of each dimension in what tells the best trials apart."
ASKED = {"front": "being near the front", "score": "a high score", "parameters": "few parameters"}

NONE = "Not told: shares of few trials would be noise. They take ten complete trials and two dimensions."


class Importance(Section):
    """Which dimensions decide whether a trial is among the best, or what did one training measure of the layers?"""

    def block(self, evidence: Evidence) -> Block | None:
        importances = evidence.search.importances
        if any(result.measured for result in evidence.results):
            return _measured(evidence)
        if not importances and evidence.search.proposals:
            return Block("Importances", text=(NONE,))
        if not importances:
            return None
        frame = table(importances)
        text = (
            "Shares by PED-ANOVA: how differently the best tenth of the trials, or the best eight of few, is spread "
            "along a dimension from all of them. With few trials shares are rough; they say what mattered in this "
            "space, not that more of it is better.",
        )
        formats = dict.fromkeys(frame.columns[1:], ".1%")
        return Block(
            "Importances",
            text=text,
            tables=(Table(frame, formats),),
            charts=(_chart(frame, "Importances", "importance", TOLD),),
        )


def _measured(evidence: Evidence) -> Block:
    text = (
        "Shares of what the super-networks measured before a pattern was chosen, by module type and by depth, mean "
        "over seeds. Energy: squared singular values of the trained update. Sensitivity: mean squared gradient of the "
        "loss by a component's gate while the network recovered.",
    )
    tables, charts = [], []
    for number, setting in enumerate(evidence.settings, 1):
        shares = measured_shares(evidence.complete(setting))
        if shares:
            frame = table(shares)
            tables.append(Table(frame, dict.fromkeys(frame.columns[1:], ".1%"), title=setting))
            charts.append(
                _chart(frame, setting, f"importance-{number}", "Share of each module type, and of each depth.")
            )
    return Block("Importances", text=text, tables=tuple(tables), charts=tuple(charts))


def table(importances: Mapping[str, Mapping[str, float]]) -> pd.DataFrame:
    """One row per dimension, the most important of the first question on top."""
    first = next(iter(importances.values()))
    rows = [
        {"dimension": name, **{ASKED.get(asked, asked): shares.get(name, 0.0) for asked, shares in importances.items()}}
        for name in first
    ]
    return pd.DataFrame(rows)


def _chart(frame: pd.DataFrame, title: str, name: str, caption: str) -> Chart:
    names = list(frame["dimension"])[::-1]
    looks = styles(frame.columns[1:])
    series = tuple(
        Series(
            column, looks[column], "interval", tuple(frame[column][::-1]), tuple(float(k) for k in range(len(names)))
        )
        for column in frame.columns[1:]
    )
    y = Axis("", ticks=tuple((float(place), name) for place, name in enumerate(names)), limits=(-0.6, len(names) - 0.4))
    panel = Curves("", series, Axis("share of the importance"), y)
    return Chart(name, title, caption, (panel,))
