"""The queue of a study: which attempt is made next. The waiting trials in the storage are the queue.

Every attempt comes from the queue: a grid queues its trials, a search queues a proposal whenever it needs one. An
attempt is made at least once. Two workers may queue the same work at the same moment; the one that takes the second
entry skips it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState, create_trial

from rankopt.core.trial_spec import TrialSpec
from rankopt.study.attempts import (
    ALONE,
    CLAIM,
    CONTINUES,
    INTERIM,
    INTERRUPTED,
    KEY,
    ORIGIN,
    PLAN,
    RESULT,
    SKIPPED,
    SPEC,
    WORKER,
    by_origin,
    is_duplicate,
    is_failure,
    keys,
    origin,
    proposal_state,
)
from rankopt.study.grid_parameters import grid_distributions, grid_parameters, stored_distributions
from rankopt.study.process import this_process
from rankopt.study.storage import StudyStore
from rankopt.study.stored_records import shown

NOT_REPEATED = ("artifacts:", "constraints:")
"""System attributes of Optuna that a requeued attempt does not inherit."""


def enqueue(store: StudyStore, specs: Iterable[tuple[dict[str, Any], TrialSpec]]) -> int:
    """Queue the trials of a grid that have no attempt yet; record which keys the study plans now.

    Args:
        store: the study.
        specs: the point of the space (shown as attributes and parameters of the attempt) and the trial, in order.
    Returns:
        The number of trials added.
    """
    plan = {spec.key: (spec, assignment) for assignment, spec in specs}
    store.study.set_user_attr(PLAN, list(plan))  # first, because workers skip queued trials outside the plan
    for attempt in store.trials(TrialState.WAITING):  # its data or model may have moved since it was queued
        key = attempt.user_attrs.get(KEY)
        if key in plan and attempt.user_attrs[SPEC] != plan[key][0].plain:
            store.storage.set_trial_user_attr(attempt._trial_id, SPEC, plan[key][0].plain)
    known = store.groups()
    new = [row for key, row in plan.items() if key not in known]
    if not new:
        return 0
    distributions = grid_distributions(assignment for _, assignment in plan.values())
    stored = stored_distributions(store.all_trials())
    for spec, assignment in new:
        values = {path: shown(value) for path, value in assignment.items()}
        params, used = grid_parameters(assignment, distributions, stored)
        store.study.add_trial(
            create_trial(
                state=TrialState.WAITING, params=params, distributions=used,
                user_attrs={SPEC: spec.plain, KEY: spec.key, **values},
            )
        )  # fmt: skip
    return len(new)


def propose(store: StudyStore) -> None:
    """Queue one more proposal of a search; the worker that takes it samples it."""
    store.study.add_trial(create_trial(state=TrialState.WAITING))


def take(store: StudyStore) -> optuna.Trial | None:
    """Take a waiting attempt, first one that continues an earlier attempt, then in the order of the plan; None when
    nothing waits.

    The sampler of a search is built for each proposal from (seed, number of the proposal). Optuna stores no random
    state, so after a restart a sampler that served several proposals would propose other points.
    """
    places = {key: place for place, key in enumerate(store.plan())} if store.search.trials is None else {}

    def priority(attempt: FrozenTrial) -> tuple[bool, int, int]:
        key = attempt.user_attrs.get(KEY, "")
        return CONTINUES not in attempt.user_attrs, places.get(key, len(places)), attempt.number

    me = this_process()
    for attempt in sorted(store.trials(TrialState.WAITING), key=priority):
        try:
            store.storage.set_trial_user_attr(attempt._trial_id, f"{CLAIM}{me['host']}:{me['pid']}", me)
            taken = store.storage.set_trial_state_values(attempt._trial_id, TrialState.RUNNING)
        except UpdateFinishedTrialError:
            continue
        if taken:
            store.storage.record_heartbeat(attempt._trial_id)  # first: without one it would never count as lost
            store.storage.set_trial_user_attr(attempt._trial_id, WORKER, me)
            if store.search.trials is not None:
                store.study.sampler = store.search.sampler(list(by_origin(store.all_trials())).index(origin(attempt)))
            return optuna.Trial(store.study, attempt._trial_id)
    return None


def skip_reason(store: StudyStore, attempt: FrozenTrial) -> str:
    """Why an attempt that was just taken must not be trained, or ""."""
    groups = store.groups()
    if is_duplicate(attempt, groups.get(store.identity(attempt), [])):
        return "duplicate"
    if store.search.trials is None:
        return "" if attempt.user_attrs.get(KEY) in store.plan() else "not planned"
    if KEY in attempt.user_attrs:  # it is sampled already
        return ""
    earlier = [proposal_state(group) for group in groups.values() if origin(group[0]) < origin(attempt)]
    return "" if len(earlier) - earlier.count("failed") < store.search.trials else "not wanted"


def skip(store: StudyStore, trial: optuna.Trial, reason: str) -> None:
    """Close an attempt untouched. No sampler learns from it, because it counts as failed."""
    trial.set_user_attr(SKIPPED, reason)
    store.study.tell(trial, state=TrialState.FAIL)


def requeue(store: StudyStore, attempt: FrozenTrial, *, afresh: bool = False) -> None:
    """Queue another attempt at the same trial; it continues from the checkpoint.

    To samplers and pruners it is the same trial: it has the same parameters, notes of the sampler and interim scores.

    Args:
        store: the study.
        attempt: the one to continue or repeat.
        afresh: leave out the interim scores, because the attempt failed.
    """
    passing = {WORKER, ALONE, INTERRUPTED, SKIPPED, *({INTERIM} if afresh else ())}
    attrs = {
        name: value
        for name, value in attempt.user_attrs.items()
        if name not in passing and not name.startswith(CLAIM) and not (name.startswith(RESULT) and is_failure(value))
    }
    notes = {name: value for name, value in attempt.system_attrs.items() if not name.startswith(NOT_REPEATED)}
    store.study.add_trial(
        create_trial(
            state=TrialState.WAITING, params=attempt.params, distributions=attempt.distributions,
            user_attrs={**attrs, ORIGIN: origin(attempt), CONTINUES: attempt.number}, system_attrs=notes,
            intermediate_values={} if afresh else attempt.intermediate_values,
        )
    )  # fmt: skip


def retry_failed(store: StudyStore) -> int:
    """Queue every planned trial whose record is a failure once more; returns how many."""
    plan = set(store.plan())
    failed = [
        group[-1]
        for group in store.groups().values()
        if proposal_state(group) == "failed" and not plan.isdisjoint(keys(group[-1]))
    ]
    for attempt in failed:
        requeue(store, attempt, afresh=True)
    return len(failed)
