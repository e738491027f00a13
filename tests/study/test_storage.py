"""A study in an Optuna storage: its spec, its attempts and its results."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from dashboard import study_detail
from optuna.trial import TrialState
from stored_study import created, record

from rankopt.study.attempts import KEY, RESULT
from rankopt.study.queue import enqueue, retry_failed
from rankopt.study.storage import StudyStore
from rankopt.study.storage_url import sqlite_url

# the package ignores this warning itself; pytest resets filters before every test
pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")

Open = Callable[..., StudyStore]
Study = Callable[..., Any]


def test_complete_beats_failed(open_store: Open, study_of: Study, result: Any) -> None:
    """One result per key: a failure is shown until a later try completes, and never after."""
    study, trials = study_of({"seed": [0]})
    store = created(open_store, study)
    enqueue(store, trials)
    failure = {"status": "failed", "points": (), "reason": "the loss became nan at step 3 of 9"}
    record(store, result, **failure)
    assert enqueue(store, trials) == 0, "a failure is a record: it is not repeated unasked"
    assert [r.reason for r in store.results()] == ["the loss became nan at step 3 of 9"]
    assert store.counts() == {"complete": 0, "failed": 1, "running": 0, "waiting": 0}
    assert retry_failed(store) == 1
    assert retry_failed(store) == 0, "it waits already"
    assert store.counts() == {"complete": 0, "failed": 0, "running": 0, "waiting": 1}
    record(store, result, score=0.9)
    for _ in range(2):
        assert [(r.status, r.score("search")) for r in store.results()] == [("complete", 0.9)]
        store.study.add_trial(  # a failure that arrives late
            optuna.trial.create_trial(
                state=TrialState.FAIL,
                user_attrs={KEY: trials[0][1].key, RESULT: result(trials[0][1], **failure).model_dump(mode="json")},
            )
        )
    assert store.counts()["complete"] == 1
    assert retry_failed(store) == 0


def test_objectives_cannot_change(open_store: Open, study_of: Study) -> None:
    """A study made for two objectives is not reopened for one; the message says what to do."""
    created(open_store, study_of()[0])
    other, _ = study_of(objectives={"score": "maximize"})
    with pytest.raises(ValueError, match=r"objectives must stay .*choose another name"):
        open_store().create(other)


def test_an_unknown_study_is_named(open_store: Open, study_of: Study) -> None:
    """Asking for a study that is not there lists those that are."""
    created(open_store, study_of()[0])
    with pytest.raises(ValueError, match=r"the storage .* has no study 'other' \(it has: tiny\)"):
        open_store("other").open()


def test_a_study_without_a_spec(open_store: Open) -> None:
    """Another program's, or one whose maker has not come so far: one line, and not its missing key."""
    store = open_store("other")
    optuna.create_study(storage=store.storage, study_name="other")
    with pytest.raises(ValueError, match=r"'other' .* has no spec: .* is creating it at this moment"):
        store.open()


def test_a_grace_shorter_than_two_heartbeats_is_refused(open_store: Open) -> None:
    """It would declare living trials dead."""
    with pytest.raises(ValueError, match="--grace must be at least twice --heartbeat 60, got 100"):
        open_store(heartbeat=60, grace=100)


def test_the_dashboard_opens_the_storage(open_store: Open, study_of: Study, result: Any, tmp_path: Path) -> None:
    """optuna-dashboard's application lists the study and serves its trials, with our attributes and artifacts."""
    study, trials = study_of()
    store = created(open_store, study)
    enqueue(store, trials)
    key = record(store, result)
    detail = study_detail(sqlite_url(tmp_path))
    assert detail["name"] == "tiny"
    assert len(detail["trials"]) == 3
    assert key in json.dumps(detail["trials"][0]["user_attrs"])
    assert detail["objective_names"] == ["score", "parameters"]
