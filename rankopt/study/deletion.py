"""Delete a trial of a study: its attempts no longer count, and its artifacts and checkpoints are removed."""

from __future__ import annotations

import shutil
from dataclasses import dataclass

from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from rankopt.study.attempts import SKIPPED, keys
from rankopt.study.storage import DELETED, StudyStore


@dataclass(frozen=True)
class Deletion:
    """What was deleted.

    Attributes:
        keys: of the trainings; several if the study repeats its proposals.
        attempts: number of attempts.
        artifacts: number of artifacts.
    """

    keys: list[str]
    attempts: int
    artifacts: int


def delete_trial(store: StudyStore, key: str | None = None, attempt: int | None = None) -> Deletion:
    """Delete all attempts at a trial.

    A grid trains the trial again when it is run; a search makes another proposal in its place.

    Args:
        store: an open study.
        key: the key of one of the trial's trainings, or a prefix of it that no other trial has.
        attempt: Optuna's number of one of its attempts, where the key cannot be read.
    Raises:
        ValueError: there is no such trial, several have this prefix, or a worker trains it now.
    """
    found = store.trials()
    named = [one for one in found if (one.number == attempt if key is None else _has(one, key))]
    option = f"--attempt {attempt}" if key is None else f"--trial {key}"
    trials = {store.identity(one) for one in named}
    if not trials:
        raise ValueError(f"{option} names no trial of study {store.name!r}; list them with `rankopt show {store.name}`")
    if len(trials) > 1:
        known = ", ".join(sorted({name for one in named for name in keys(one)}))
        raise ValueError(f"{option} must name one trial, got {len(trials)}: {known}")
    group = [one for one in found if store.identity(one) in trials]
    if any(one.state == TrialState.RUNNING for one in group):
        raise ValueError(f"{option} is being trained; stop its worker first, or wait until it has finished")
    for one in group:
        if one.state == TrialState.WAITING:
            _close(store, one)
    store.study.set_user_attr(DELETED, [*store.study.user_attrs.get(DELETED, []), *(one.number for one in group)])
    names = list(dict.fromkeys(name for one in group for name in keys(one)))
    for name in names:
        shutil.rmtree(store.folder / "trials" / name, ignore_errors=True)
    return Deletion(names, len(group), store.artifacts.remove(group))


def _has(attempt: FrozenTrial, prefix: str) -> bool:
    return bool(prefix) and any(name.startswith(prefix) for name in keys(attempt))


def _close(store: StudyStore, attempt: FrozenTrial) -> None:
    """Take a waiting attempt out of the queue."""
    try:
        store.storage.set_trial_user_attr(attempt._trial_id, SKIPPED, "deleted")
        store.storage.set_trial_state_values(attempt._trial_id, TrialState.FAIL)
    except UpdateFinishedTrialError:
        raise ValueError(f"attempt {attempt.number} was taken by a worker at this moment; try again") from None
