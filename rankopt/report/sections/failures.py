"""Failed trials, missing results, and results outside the plan."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import pandas as pd

from rankopt.core.result import TrialResult
from rankopt.core.text import plural
from rankopt.core.trial_spec import method_label
from rankopt.report.base import Block, Section, Table
from rankopt.report.evidence import Evidence

SHOWN = 300
"""The largest number of characters shown of a reason; the study's storage has the whole text."""


class Failures(Section):
    """Which results are missing, and why?"""

    def block(self, evidence: Evidence) -> Block:
        failed = [result for result in evidence.results if result.status == "failed"]
        notes = Counter(note for result in evidence.results for note in result.notes)
        bullets = [f"{plural(len(failed), 'trial')} failed."]
        if evidence.planned:
            bullets.append(incomplete(evidence))
        if evidence.unplanned:
            bullets.append(
                f"{plural(len(evidence.unplanned), 'result')} outside the study's plan, from an earlier version of the "
                "study file or from --set: listed below, excluded from everything else."
            )
        if evidence.counts:
            states = ", ".join(f"{state} {number:,}" for state, number in sorted(evidence.counts.items()))
            bullets.append(f"Trials in the storage: {states}.")
        tables = []
        if failed:
            tables.append(Table(_table(failed, "reason", map(_reason, failed)), title="Failed trials"))
        if evidence.unplanned:
            scores = (_score(result) for result in evidence.unplanned)
            tables.append(Table(_table(evidence.unplanned, "result", scores), title="Results outside the plan"))
        if unreadable := evidence.search.unreadable:
            bullets.append(f"{plural(len(unreadable), 'stored record')} cannot be read: listed below and left out.")
            lines = pd.DataFrame({"problem": list(unreadable)})
            tables.append(Table(lines, title="Unreadable records"))
        if notes:
            rows = [(note, number) for note, number in sorted(notes.items())]
            tables.append(Table(pd.DataFrame(rows, columns=["note", "trials"]), title="Notes on trials"))
        return Block("Failures and missing results", bullets=tuple(bullets), tables=tuple(tables))


def incomplete(evidence: Evidence) -> str:
    """How many planned trials have no complete result, as a sentence."""
    missing, planned = len(evidence.missing), plural(len(evidence.planned), "planned trial")
    return f"{missing:,} of {planned} {'has' if missing == 1 else 'have'} no complete result."


def _table(results: Iterable[TrialResult], last: str, texts: Iterable[str]) -> pd.DataFrame:
    """One row per result; a spec may be invalid, so fields are read from it as plain data."""
    rows = []
    for result, text in zip(results, texts, strict=True):
        task, allocator = _name(result.spec.get("task")), method_label(result.spec) or "?"
        rows.append((task, allocator, _amount(result.spec.get("budget")), result.spec.get("seed", 0), result.key, text))
    frame = pd.DataFrame(rows, columns=["task", "allocator", "budget", "seed", "key", last])
    return frame.sort_values(["task", "allocator", "budget", "seed", "key"], key=lambda column: column.map(str))


def _name(part: object) -> str:
    return str(part.get("name", "?")) if isinstance(part, dict) else "?"


def _amount(budget: object) -> str:
    given = {name: value for name, value in budget.items() if value is not None} if isinstance(budget, dict) else {}
    return ", ".join(f"{name} {value}" for name, value in sorted(given.items())) or "none"


def _reason(result: TrialResult) -> str:
    reason = " ".join(result.reason.split()) or "no reason was recorded"
    return reason if len(reason) <= SHOWN else f"{reason[:SHOWN]} ..."


def _score(result: TrialResult) -> str:
    if result.status == "failed":
        return f"failed: {_reason(result)}"
    return f"report {result.metrics[0]} {result.score('report'):.3f}, {result.own.kept:,} parameters"
