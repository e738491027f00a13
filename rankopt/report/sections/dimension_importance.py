"""The importance of a search's dimensions."""

from __future__ import annotations

from rankopt.report.base import Block, Section
from rankopt.report.evidence import Evidence
from rankopt.report.shares import shares_chart, shares_table

QUESTIONS = {"front": "being near the front", "score": "a good score", "parameters": "few parameters"}
TITLE = "Dimension importance"


class DimensionImportance(Section):
    """Which dimensions of the space decide whether a trial is among the best?"""

    def block(self, evidence: Evidence) -> Block | None:
        importances = evidence.search.importances
        if not importances and evidence.search.proposals:
            text = "Not computed: it takes at least ten complete trials and two dimensions to be more than noise."
            return Block(TITLE, text=(text,))
        if not importances:
            return None
        table = shares_table({QUESTIONS.get(name, name): part for name, part in importances.items()}, "dimension")
        text = (
            "Shares by PED-ANOVA: how much the distribution of the best trials (the best tenth, at least eight) along "
            "a dimension differs from that of all trials. Shares from few trials are rough. They hold for this space, "
            "and a large share does not mean that larger values are better."
        )
        caption = "Share of each dimension in what distinguishes the best trials."
        chart = shares_chart(table, "importance", TITLE, caption, "share of the importance")
        return Block(TITLE, text=(text,), tables=(table,), charts=(chart,))
