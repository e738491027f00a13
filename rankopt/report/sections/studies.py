"""Which studies are compared, which of their trials are paired, and why others are not."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from rankopt.analysis.conditions import not_paired, training_differences
from rankopt.analysis.frame import CONTROL
from rankopt.core.result import TrialResult
from rankopt.report.base import Block, Section, Table
from rankopt.report.conclusion import conclusion, remarks
from rankopt.report.evidence import Evidence
from rankopt.report.formatting import joined


class Studies(Section):
    """What is compared with what?"""

    def block(self, evidence: Evidence) -> Block | None:
        if not evidence.parts:
            return None
        first, *others = evidence.parts
        facts = [(sentence.label, sentence.text) for sentence in conclusion(evidence)]
        if not facts:
            facts = [("Result", f"No trial can be paired with a trial of {CONTROL} in {first.study.name}.")]
        explained = (
            f"Words in brackets name the study; those without are of {first.study.name}, whose {CONTROL} is the "
            "control. Trials are paired where task, data with its splits, model, budget and seed agree."
        )
        warnings = [line for other in others for line in _told(first, other)]
        return Block(
            "Answer",
            facts=(*facts, ("Labels", explained)),
            warnings=(*warnings, *(remarks(evidence) if len(evidence.comparison.arms) else ())),
            tables=(_table(evidence),),
        )


def _told(first: Evidence, other: Evidence) -> Iterator[str]:
    """What keeps trials of two studies apart, and in what paired trials differ."""
    pair = f"{other.study.name} and {first.study.name}"
    ours, theirs = _complete(first), _complete(other)
    reasons = not_paired(theirs, ours)
    for reason in reasons:
        yield f"{pair} are not paired on {reason}."
    shared = {spec.task.name for spec in first.specs} & {spec.task.name for spec in other.specs}
    if len(reasons) < len(shared) and (differences := training_differences(theirs, ours)):
        yield f"{pair} are paired although their training differs: {'; '.join(differences)}."


def _complete(evidence: Evidence) -> list[TrialResult]:
    return [result for result in evidence.results if result.status == "complete"]


def _table(evidence: Evidence) -> Table:
    rows = []
    for part in evidence.parts:
        complete = _complete(part)
        rows.append(
            {
                "study": part.study.name,
                "search": part.study.search.name,
                "tasks": joined(sorted({spec.task.name for spec in part.specs})),
                "models": joined(sorted({spec.model_label for spec in part.specs})),
                "allocators": joined(sorted(set(part.points["allocator"]))),
                "seeds": joined([str(seed) for seed in sorted({spec.seed for spec in part.specs})]),
                "trials": len(complete),
                "failed": len(part.results) - len(complete),
                "code": joined(sorted({result.environment.get("code", "unknown") for result in complete})),
            }
        )
    return Table(pd.DataFrame(rows), title="Studies")
