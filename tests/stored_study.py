"""Stores with attempts in chosen states, for tests."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

from optuna.trial import TrialState

from rankopt.core.result import TrialResult
from rankopt.core.spec import decode
from rankopt.core.study_spec import StudySpec
from rankopt.core.trial_spec import TrialSpec
from rankopt.study.attempts import RESULT, SPEC
from rankopt.study.process import this_process
from rankopt.study.queue import take
from rankopt.study.storage import StudyStore


def created(open_store: Callable[..., StudyStore], study: StudySpec) -> StudyStore:
    """A store with a new study."""
    store = open_store(study.name)
    store.create(study)
    return store


def record(store: StudyStore, result: Callable[..., TrialResult], **changes: Any) -> str:
    """Take the next waiting attempt and record a result of it, as a worker does; returns its key."""
    trial = take(store)
    assert trial is not None
    made = result(decode(TrialSpec, trial.user_attrs[SPEC]), **changes)
    trial.set_user_attr(RESULT, made.model_dump(mode="json"))
    if made.status == "complete":
        store.study.tell(trial, [made.score("search"), made.own.kept])
    else:
        store.study.tell(trial, state=TrialState.FAIL)
    return made.key


def dead_worker() -> dict[str, Any]:
    """The record of a process of this machine that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return this_process() | {"pid": process.pid}


def states(store: StudyStore) -> list[str]:
    """The state of every attempt, in Optuna's words."""
    return [attempt.state.name for attempt in store.trials()]
