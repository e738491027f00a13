"""What several searches found with the same number of proposals."""

from __future__ import annotations

from typing import Any

import pandas as pd

from rankopt.analysis.averages import average
from rankopt.analysis.pareto import front, hypervolume
from rankopt.report.base import Block, Section, Table
from rankopt.report.evidence import Evidence

FORMATS = {"search score": ".3f", "report score": ".3f", "parameters": ",.0f", "hypervolume": ".3f"}


class Searches(Section):
    """Which search found more with equal proposals?"""

    def block(self, evidence: Evidence) -> Block | None:
        parts = [part for part in evidence.parts if not part.study.listed and part.settings]
        if len(parts) < 2:
            return None
        number = min(len(_proposed(part)) for part in parts)
        found = {part.study.name: _averages(evidence, part, number) for part in parts}
        rows = [row for setting in evidence.settings for row in _rows(setting, found)]
        text = (
            f"The first {number:,} complete proposals of each search. Best: the configuration with the best search "
            "score within the study's constraint. Hypervolume: of all proposals by search score, as a share of the "
            "box between the best score at the fewest parameters and the lowest score at the most parameters of all "
            "searches. One run of a search does not show how much it varies from run to run: compare several seeds."
        )
        return Block("Searches at equal proposals", text=(text,), tables=(Table(pd.DataFrame(rows), FORMATS),))


def _proposed(part: Evidence) -> list[str]:
    """The keys of the complete proposals, in order; without a record of them those of the results."""
    complete = set(part.points["key"])
    if not part.search.proposals:
        return sorted(complete)
    return [one.keys[0] for one in part.search.proposals if one.fate == "complete" and one.keys[0] in complete]


def _averages(evidence: Evidence, part: Evidence, number: int) -> pd.DataFrame:
    """Means over seeds of the configurations of the first proposals, in the settings of the joint evidence."""
    first = set(_proposed(part)[:number])
    settings = dict(zip(evidence.points["key"], evidence.points["setting"], strict=True))
    points = part.points.assign(setting=part.points["key"].map(settings))
    chosen = set(points.loc[points["key"].isin(first), "configuration"])
    averages = average(points[points["configuration"].isin(chosen)])
    limit = part.study.constraints.get("parameters", float("inf"))
    return averages[averages["kept"] <= limit]


def _rows(setting: str, found: dict[str, pd.DataFrame]) -> list[dict[str, Any]]:
    here = {name: rows[rows["setting"] == setting] for name, rows in found.items()}
    everything = pd.concat(list(here.values()))
    reference = (float(everything["kept"].max()), float(everything["gain"].min()))
    box = (reference[0] - everything["kept"].min()) * (everything["gain"].max() - reference[1])
    rows = []
    for name, own in here.items():
        if own.empty:
            continue
        best = own.sort_values(["gain", "kept"], ascending=[False, True]).iloc[0]
        area = hypervolume(own["kept"].tolist(), own["gain"].tolist(), reference)
        rows.append(
            {
                "task": setting, "study": name, "search score": best["search"], "report score": best["score"],
                "parameters": best["kept"], "hypervolume": area / box if box > 0 else float("nan"),
                "on its front": len(front(own["kept"].tolist(), own["gain"].tolist())), "configurations": len(own),
            }
        )  # fmt: skip
    return rows
