"""`delete_trial` removes what a trial left behind; a grid then trains it again, a search replaces it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from rankopt.core.result import TrialResult
from rankopt.study.attempts import RESULT
from rankopt.study.deletion import delete_trial
from rankopt.study.queue import enqueue, propose, take
from rankopt.study.storage import StudyStore

# the package ignores this warning itself; pytest resets filters before every test
pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")


@pytest.fixture
def store(open_store: Callable[..., StudyStore], study_of: Any, result: Callable[..., TrialResult]) -> StudyStore:
    """A grid of three trials, the first two complete and with an artifact, the third waiting."""
    study, trials = study_of()
    store = open_store()
    store.create(study)
    enqueue(store, trials)
    for _, spec in trials[:2]:
        trial = take(store)
        assert trial is not None
        trial.set_user_attr(RESULT, result(spec).model_dump(mode="json"))
        path = store.folder / "adapter.txt"
        path.write_text("weights")
        store.artifacts.upload(trial, path, spec.key)
        store.study.tell(trial, [0.75, 24])
    return store


def test_a_deleted_trial_is_queued_again(store: StudyStore, study_of: Any) -> None:
    """Its result, artifact and checkpoints are gone; the others stay; running the study queues it once."""
    trials = study_of()[1]
    first, second, third = (spec.key for _, spec in trials)
    (store.folder / "trials" / first).mkdir(parents=True)
    done = delete_trial(store, first[:6])
    assert (done.keys, done.attempts, done.artifacts) == ([first], 1, 1)
    assert not (store.folder / "trials" / first).exists()
    assert [result.key for result in store.results()] == [second]
    assert store.counts() == {"complete": 1, "failed": 0, "running": 0, "waiting": 2}
    assert len(list(Path(store.artifacts.location).iterdir())) == 1
    assert (enqueue(store, trials), enqueue(store, trials)) == (1, 0)
    waiting = [trial.user_attrs["key"] for trial in store.trials(TrialState.WAITING)]
    assert sorted(waiting) == sorted([first, third])


def test_a_waiting_trial_is_deleted(store: StudyStore) -> None:
    """It leaves the queue."""
    (waiting,) = store.trials(TrialState.WAITING)
    assert delete_trial(store, attempt=waiting.number).attempts == 1
    assert take(store) is None


def test_a_running_trial_is_not_deleted(store: StudyStore) -> None:
    trial = take(store)
    assert trial is not None
    with pytest.raises(ValueError, match="is being trained; stop its worker first"):
        delete_trial(store, trial.user_attrs["key"])


def test_a_name_that_fits_no_trial_or_several(store: StudyStore) -> None:
    """The message says how to find the right one."""
    with pytest.raises(
        ValueError, match="--trial zzz names no trial of study 'tiny'; list them with `rankopt show tiny`"
    ):
        delete_trial(store, "zzz")
    with pytest.raises(ValueError, match="--attempt 99 names no trial"):
        delete_trial(store, attempt=99)
    every = {key[0] for key in store.plan()}
    if len(every) < 3:
        shared = max(every, key=lambda letter: sum(key.startswith(letter) for key in store.plan()))
        with pytest.raises(ValueError, match="must name one trial"):
            delete_trial(store, shared)


def test_a_search_replaces_a_deleted_proposal(
    open_store: Callable[..., StudyStore], study_of: Any, result: Callable[..., TrialResult], tiny_spec: Any
) -> None:
    """It makes one more proposal, with an index of its own: no earlier point is proposed again."""
    study, _ = study_of({"training.lr": {"float": [1e-4, 1e-2]}}, search={"name": "random", "trials": 3})
    store = open_store()
    store.create(study)
    points = []

    def complete() -> None:
        propose(store)
        trial = take(store)
        assert trial is not None
        points.append(trial.suggest_float("training.lr", 1e-4, 1e-2))
        spec = tiny_spec(training__lr=points[-1])
        for name, value in (("spec", spec.plain), ("key", spec.key), (RESULT, result(spec).model_dump(mode="json"))):
            trial.set_user_attr(name, value)
        store.study.tell(trial, [0.75, 24])

    while store.wants():
        complete()
    assert len(points) == 3
    delete_trial(store, store.plan()[1])
    assert store.wants()
    complete()
    assert not store.wants()
    assert len(set(points)) == 4
    assert store.counts()["complete"] == 3
