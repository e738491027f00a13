"""An overview of a study's results: one row per result, whatever its state."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from rankopt.analysis.search import configuration
from rankopt.core.result import TrialResult
from rankopt.core.study_spec import StudySpec
from rankopt.core.trial_spec import method_label


def overview(study: StudySpec, results: Iterable[TrialResult], counted: Collection[str]) -> list[dict[str, Any]]:
    """One row per result.

    Args:
        study: the current spec.
        results: of the study's storage, which leaves damaged ones out.
        counted: keys of the results that the study's tables and reports use.
    Returns:
        `key`, `task`, `allocator`, `budget` (plain data), `seed`, `kept`, `search` and `report` (primary metric, None
        without a score), `configuration` (values of further dimensions, if the study varies any) and `status`.
    """
    rows = [_row(study, result, counted) for result in results]
    if not any(row["configuration"] for row in rows):
        for row in rows:
            del row["configuration"]
    return rows


def _row(study: StudySpec, result: TrialResult, counted: Collection[str]) -> dict[str, Any]:
    spec = result.spec
    own = result.points[0] if result.points else None
    task = spec.get("task")
    return {
        "key": result.key,
        "task": task.get("name") if isinstance(task, dict) else None,
        "allocator": method_label(spec),
        "budget": spec.get("budget"),
        "seed": spec.get("seed", 0),
        "kept": own.kept if own else None,
        "search": result.score("search") if own else None,
        "report": result.score("report") if own else None,
        "configuration": configuration(study, spec),
        "status": _status(study, result, result.key in counted),
    }


def _status(study: StudySpec, result: TrialResult, counted: bool) -> str:
    if result.status == "failed":
        return f"failed: {result.reason}"
    if counted:
        return result.status
    return f"{result.status}, {'not in the plan' if study.listed else 'not counted (its proposal is not complete)'}"
