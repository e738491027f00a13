"""Attempts at a study's trials: their attributes, and what follows from them. Pure functions on Optuna's frozen trials.

A trial of a grid, named by its key, has one or more attempts, and so has a proposal of a search, named by the number of
its first attempt. Each attempt is one trial of Optuna.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from optuna.trial import FrozenTrial, TrialState

SPEC, KEY, RESULT, WORKER, INTERRUPTED, PLAN = "spec", "key", "result", "worker", "interrupted", "plan"
CLAIM = "claim:"
"""Start of the attributes in which workers name themselves before they take an attempt; one of them then has it."""
ORIGIN = "origin"
"""On a later attempt at a proposal: the number of its first attempt."""
CONTINUES = "continues"
"""On a later attempt: the number of the attempt that it repeats or continues."""
SKIPPED = "dropped"
"""Why an attempt that was not trained is closed: "duplicate", "not planned", "not wanted", "deleted" or "imported"."""
ALONE = "alone"
"""Index of the training that runs alone in its process; a crash is attributed to it. None once it has ended."""
INTERIM = "interim"
"""Scores at the evaluations during training."""

AttemptState = Literal["waiting", "running", "complete", "pruned", "failed", "lost", "interrupted", "skipped"]
ProposalState = Literal["waiting", "running", "complete", "pruned", "failed"]
Group = Sequence[FrozenTrial]
"""The attempts at one trial or proposal, in order, without the skipped ones."""


def result_slot(index: int) -> str:
    """The attribute that holds the result of a trial's training `index`; there is one unless the study repeats."""
    return RESULT if index == 0 else f"{RESULT}:{index}"


def recorded(attempt: FrozenTrial) -> list[dict[str, Any]]:
    """The results of an attempt's trainings so far, in order, as plain data."""
    slots = itertools.takewhile(attempt.user_attrs.__contains__, map(result_slot, itertools.count()))
    return [attempt.user_attrs[slot] for slot in slots]


def counted(attempt: FrozenTrial) -> list[dict[str, Any]]:
    """The results that count in a search: all of a complete attempt, the failure of a failed one."""
    found = recorded(attempt)
    return found if attempt.state == TrialState.COMPLETE else [result for result in found if is_failure(result)]


def is_failure(result: Any) -> bool:
    """Whether a recorded result is that of a failed training."""
    return isinstance(result, dict) and result.get("status") == "failed"


def keys(attempt: FrozenTrial) -> list[str]:
    """The keys of an attempt's trainings so far; the first is known before it is trained."""
    first = [attempt.user_attrs[KEY]] if KEY in attempt.user_attrs else []
    later = [result["key"] for result in recorded(attempt) if isinstance(result, dict) and "key" in result]
    return list(dict.fromkeys([*first, *later]))


def origin(attempt: FrozenTrial) -> int:
    """The number of the first attempt at the same proposal."""
    return int(attempt.user_attrs.get(ORIGIN, attempt.number))


def by_key(attempts: Iterable[FrozenTrial]) -> dict[str, list[FrozenTrial]]:
    """The attempts at each trial of a grid."""
    groups: dict[str, list[FrozenTrial]] = {}
    for attempt in attempts:
        if KEY in attempt.user_attrs and SKIPPED not in attempt.user_attrs:
            groups.setdefault(attempt.user_attrs[KEY], []).append(attempt)
    return groups


def by_origin(attempts: Iterable[FrozenTrial]) -> dict[int, list[FrozenTrial]]:
    """The attempts at each proposal of a search."""
    groups: dict[int, list[FrozenTrial]] = {}
    for attempt in attempts:
        if SKIPPED not in attempt.user_attrs:
            groups.setdefault(origin(attempt), []).append(attempt)
    return dict(sorted(groups.items()))


def attempt_state(attempt: FrozenTrial) -> AttemptState:
    """The state of one attempt; one that ended without an outcome was lost with its worker, or interrupted."""
    if SKIPPED in attempt.user_attrs:
        return "skipped"
    match attempt.state:
        case TrialState.WAITING:
            return "waiting"
        case TrialState.RUNNING:
            return "running"
        case TrialState.COMPLETE:
            return "complete"
        case TrialState.PRUNED:
            return "pruned"
    if any(is_failure(result) for result in recorded(attempt)):
        return "failed"
    return "interrupted" if INTERRUPTED in attempt.user_attrs else "lost"


def proposal_state(group: Group) -> ProposalState:
    """The state of a trial or proposal, given its attempts."""
    states = [attempt_state(attempt) for attempt in group]
    state: ProposalState
    for state in ("complete", "pruned", "running", "waiting"):
        if state in states:
            return state
    return "failed" if states[-1] == "failed" else "waiting"


def unfinished(group: Group) -> FrozenTrial | None:
    """The attempt that must be requeued: the last one was lost or interrupted, and no other is open or has finished."""
    if {"complete", "pruned", "running", "waiting"} & {attempt_state(attempt) for attempt in group}:
        return None
    return None if attempt_state(group[-1]) == "failed" else group[-1]


def is_duplicate(attempt: FrozenTrial, group: Group) -> bool:
    """Whether another attempt has done, does or failed the same work.

    Two workers may requeue the same lost attempt. The first of the two attempts counts; a failure from before the
    requeueing does not make an attempt a duplicate, because it was requeued on purpose.
    """
    since = attempt.user_attrs.get(CONTINUES, -1)
    for other in group:
        match attempt_state(other):
            case "complete" | "pruned":
                return True
            case "running" if other.number < attempt.number:
                return True
            case "failed" if other.number > since:
                return True
    return False


def crashes(group: Group, index: int) -> list[FrozenTrial]:
    """The attempts that were lost during training `index`."""
    lost = (attempt for attempt in group if attempt_state(attempt) == "lost")
    return [attempt for attempt in lost if len(recorded(attempt)) == index]
