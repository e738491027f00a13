"""Recovery: every lost or interrupted attempt is requeued once.

Any worker may recover at any time. What to do follows from the record alone, so a worker that crashes while it recovers
leaves the rest to the next one. Trainings are deterministic and results are keyed by content: a training that is made
twice costs time and changes no result.
"""

from __future__ import annotations

import random
import time
from datetime import datetime

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import fail_stale_trials
from optuna.trial import FrozenTrial, TrialState, create_trial

from rankopt.core.result import TrialResult
from rankopt.core.spec import decode
from rankopt.core.trial_spec import TrialSpec
from rankopt.study.attempts import (
    ALONE,
    CLAIM,
    INTERRUPTED,
    KEY,
    ORIGIN,
    SPEC,
    WORKER,
    Group,
    crashes,
    origin,
    recorded,
    result_slot,
    unfinished,
)
from rankopt.study.process import is_gone
from rankopt.study.queue import requeue
from rankopt.study.storage import StudyStore
from rankopt.study.stored_records import record_of

RETRIES = 3
"""Number of crashes after which a training that ran alone is still retried; one more is recorded as a failure."""


def recover(store: StudyStore) -> bool:
    """Close lost attempts and requeue unfinished ones. Returns whether unfinished ones are left for the next call."""
    if store.connector and time.monotonic() - store.connector.back_since < 2 * store.heartbeat.total_seconds():
        return True  # after an outage the living workers first need time to send a heartbeat
    running = store.trials(TrialState.RUNNING)
    closed = {attempt.number for attempt in running if _is_lost(store, attempt) and _close(store, attempt)}
    fail_stale_trials(store.study)
    for group in unfinished_groups(store):
        # the worker that closed an attempt requeues it at once; if it crashed before, another one does a heartbeat
        # later, or up to two heartbeats, so that not all do at the same moment
        age = abs(datetime.now() - (group[-1].datetime_complete or datetime.min))  # by the clock of who closed it
        if group[-1].number in closed or age > store.heartbeat * random.uniform(1, 2):
            _requeue(store, group)
    return bool(unfinished_groups(store))


def unfinished_groups(store: StudyStore) -> list[Group]:
    """The attempts at each planned trial whose last attempt was lost or interrupted and is not requeued yet."""
    groups = [group for group in store.groups().values() if unfinished(group)]
    if store.search.trials is not None:
        return groups
    plan = set(store.plan())
    return [group for group in groups if group[-1].user_attrs[KEY] in plan]


def give_back(store: StudyStore, trial: optuna.Trial) -> None:
    """Close an interrupted attempt and requeue it, unless it is closed already."""
    attempt = store.frozen(trial)
    if not attempt.state.is_finished():
        trial.set_user_attr(INTERRUPTED, True)
        store.study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)
        requeue(store, attempt)


def _is_lost(store: StudyStore, attempt: FrozenTrial) -> bool:
    """Whether an attempt's process is gone, also where it crashed between taking the attempt and recording itself.

    The process that took an attempt is then one of those that claimed it.
    `fail_stale_trials` finds the lost attempts of other machines, by their heartbeats.
    """
    if WORKER in attempt.user_attrs:
        return is_gone(attempt.user_attrs[WORKER])
    claims = [process for name, process in attempt.user_attrs.items() if name.startswith(CLAIM)]
    if claims and all(map(is_gone, claims)):
        return True
    return datetime.now() - (attempt.datetime_start or datetime.min) > store.grace


def _close(store: StudyStore, attempt: FrozenTrial) -> bool:
    """Whether this process, and not another one, closed an attempt."""
    try:
        return store.storage.set_trial_state_values(attempt._trial_id, TrialState.FAIL)
    except UpdateFinishedTrialError:
        return False


def _requeue(store: StudyStore, group: Group) -> None:
    """Queue the next attempt, or record a failure once a training crashed more than `RETRIES` times while alone.

    A crash during joint training may be another trial's fault.
    """
    attempt = group[-1]
    index = len(recorded(attempt))
    alone = sum(lost.user_attrs.get(ALONE) == index for lost in crashes(group, index))
    trainings = _trainings(store, attempt) if SPEC in attempt.user_attrs else []
    if alone <= RETRIES or index == len(trainings):  # all results recorded: only closing is left
        requeue(store, attempt)
        return
    spec = trainings[index]
    reason = f"its worker crashed {alone} times (killed, or out of memory)"
    result = TrialResult(key=spec.key, spec=spec.plain, status="failed", reason=reason)
    attrs = {**attempt.user_attrs, result_slot(index): record_of(result), ORIGIN: origin(attempt)}
    store.study.add_trial(create_trial(state=TrialState.FAIL, user_attrs=attrs))


def _trainings(store: StudyStore, attempt: FrozenTrial) -> list[TrialSpec]:
    return store.spec().trainings(decode(TrialSpec, attempt.user_attrs[SPEC]))


def must_run_alone(store: StudyStore, attempt: FrozenTrial) -> bool:
    """Whether a worker crashed during an earlier attempt at the same training, perhaps because of it."""
    return bool(crashes(store.groups()[store.identity(attempt)], len(recorded(attempt))))
