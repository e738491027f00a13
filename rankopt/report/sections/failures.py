"""What did not work, is missing, or was never planned."""

from __future__ import annotations

from collections import Counter

import pandas as pd

from rankopt.core.result import TrialResult
from rankopt.report.base import Block, Section, Table
from rankopt.report.evidence import Evidence
from rankopt.report.formatting import plural

SHOWN = 300
"""Characters of a reason; the whole text is in the study's storage."""


class Failures(Section):
    """Is anything missing from the picture?"""

    def block(self, evidence: Evidence) -> Block:
        failed = [result for result in evidence.results if result.status == "failed"]
        notes = Counter(note for result in evidence.results for note in result.notes)
        planned = _planned(evidence)
        done = {result.key for result in evidence.results if result.status == "complete"}
        bullets = [f"{plural(len(failed), 'trial')} failed."]
        if planned:
            missing, outside = len(planned - done), len(done - planned)
            bullets.append(
                f"{missing:,} of {plural(len(planned), 'planned trial')} {_have(missing)} no complete result."
            )
            bullets.append(
                f"{plural(outside, 'result')} outside the study's plan (another version of its file, or a --set)."
            )
        if evidence.counts:
            states = ", ".join(f"{state} {number:,}" for state, number in sorted(evidence.counts.items()))
            bullets.append(f"Trials in the storage: {states}.")
        tables = []
        if failed:
            tables.append(Table(_reasons(failed), title="Failed trials"))
        if notes:
            rows = [(note, number) for note, number in sorted(notes.items())]
            tables.append(Table(pd.DataFrame(rows, columns=["note", "trials"]), title="Remarks of trials"))
        return Block("Failures and gaps", bullets=tuple(bullets), tables=tuple(tables))


def _have(number: int) -> str:
    return "has" if number == 1 else "have"


def _planned(evidence: Evidence) -> set[str]:
    """The keys that are known beforehand; those that a search proposes have no plan to compare with."""
    if not evidence.study.listed:
        return set()
    return {evidence.study.trial(each).key for each in evidence.study.assignments()} | set(evidence.search.plan)


def _reasons(failed: list[TrialResult]) -> pd.DataFrame:
    rows = []
    for result in failed:
        spec = result.spec  # plain: what a search proposed in vain may be no valid trial
        budget = {name: value for name, value in (spec.get("budget") or {}).items() if value is not None}
        amount = ", ".join(f"{name} {value}" for name, value in sorted(budget.items())) or "none"
        reason = " ".join(result.reason.split()) or "no reason was recorded"
        cut = reason if len(reason) <= SHOWN else f"{reason[:SHOWN]} ..."
        task, allocator = spec["task"]["name"], spec["allocator"]["name"]
        rows.append((task, allocator, amount, spec.get("seed", 0), result.key, cut))
    frame = pd.DataFrame(rows, columns=["task", "allocator", "budget", "seed", "key", "reason"])
    return frame.sort_values(["task", "allocator", "budget", "seed", "key"])
