"""Recovery: lost and interrupted attempts are requeued once, whoever crashes meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from optuna.trial import TrialState
from stored_study import created, dead_worker, record, states

from rankopt.core.result import TrialResult
from rankopt.study import queue, recovery
from rankopt.study.attempts import ALONE, CLAIM, CONTINUES, KEY, ORIGIN, SKIPPED, SPEC, WORKER, crashes
from rankopt.study.process import this_process
from rankopt.study.queue import enqueue, requeue, retry_failed, skip, take
from rankopt.study.recovery import give_back, must_run_alone, recover, unfinished_groups
from rankopt.study.storage import StudyStore

# the package ignores this warning itself; pytest resets filters before every test
pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")

Open = Callable[..., StudyStore]
Study = Callable[..., Any]


@pytest.fixture
def store(open_store: Open, study_of: Study) -> StudyStore:
    """A study of one trial, queued."""
    study, trials = study_of({"seed": [0]})
    store = created(open_store, study)
    enqueue(store, trials)
    return store


def test_a_lost_attempt_is_requeued(open_store: Open, study_of: Study) -> None:
    """A running attempt of a process that is gone from this machine is closed and requeued with its spec, once; one of
    a living process, or of another machine, is left alone."""
    study, trials = study_of()
    store = created(open_store, study)
    enqueue(store, trials)
    for worker in (dead_worker(), this_process(), dead_worker() | {"host": "elsewhere"}):
        take(store).set_user_attr(WORKER, worker)
    open_store().open()
    for _ in range(2):
        recover(store)
        assert states(store) == ["FAIL", "RUNNING", "RUNNING", "WAITING"]
    again = store.trials()[3]
    assert again.user_attrs[KEY] == trials[0][1].key
    assert again.user_attrs[SPEC] == trials[0][1].plain
    assert WORKER not in again.user_attrs
    assert store.counts() == {"complete": 0, "failed": 0, "running": 2, "waiting": 1}
    assert enqueue(store, trials) == 0


def test_a_recycled_process_id_is_another_process(store: StudyStore) -> None:
    """The same number, started at another time."""
    worker = this_process()
    take(store).set_user_attr(WORKER, worker | {"started": worker["started"] - 100})
    recover(store)
    assert states(store) == ["FAIL", "WAITING"]


def test_four_crashes_are_a_failure(store: StudyStore) -> None:
    """A trial is retried after three crashes; the fourth is a recorded failure with its reason, and nothing waits."""
    for crash in range(4):
        assert store.counts()["waiting"] == 1, crash
        trial = take(store)
        trial.set_user_attr(WORKER, dead_worker())
        trial.set_user_attr(ALONE, 0)
        recover(store)
    assert store.counts() == {"complete": 0, "failed": 1, "running": 0, "waiting": 0}
    failure = store.results()[0]
    assert failure.reason == "its worker crashed 4 times (killed, or out of memory)"
    assert TrialResult.model_validate_json(failure.model_dump_json()) == failure
    assert retry_failed(store) == 1
    again = store.trials(TrialState.WAITING)[0]
    assert set(again.user_attrs) == {SPEC, KEY, ORIGIN, CONTINUES, "seed"}


def test_crashes_in_company_are_no_failure(store: StudyStore) -> None:
    """Another trial may be at fault. The next attempt is made alone, and there four crashes count."""
    for crash, alone in enumerate([False] * 5 + [True] * 4):
        assert store.counts()["waiting"] == 1, crash
        (group,) = store.groups().values()
        assert len(crashes(group, 0)) == crash
        assert must_run_alone(store, group[-1]) == (crash > 0)
        assert ALONE not in group[-1].user_attrs
        trial = take(store)
        trial.set_user_attr(WORKER, dead_worker())
        if alone:
            trial.set_user_attr(ALONE, 0)
        recover(store)
    assert store.results()[0].reason == "its worker crashed 4 times (killed, or out of memory)"


def test_interruptions_are_no_crashes(store: StudyStore) -> None:
    """A trial that is given back five times still only waits."""
    for _ in range(5):
        trial = take(store)
        trial.set_user_attr(ALONE, 0)
        trial.set_user_attr(WORKER, dead_worker())
        give_back(store, trial)
    take(store).set_user_attr(WORKER, dead_worker())
    recover(store)
    assert store.counts() == {"complete": 0, "failed": 0, "running": 0, "waiting": 1}


def test_an_attempt_that_is_closed_already_is_not_given_back(store: StudyStore, result: Callable[..., Any]) -> None:
    """The server closed it and its answer was lost: its result stays, and nothing is queued."""
    trial = take(store)
    store.study.tell(trial, [0.5, 24])
    give_back(store, trial)
    assert states(store) == ["COMPLETE"]


def test_a_machine_lost_before_the_second_heartbeat(open_store: Open, study_of: Study, monkeypatch: Any) -> None:
    """An attempt has a heartbeat from the moment it is taken, so a crash of another machine is noticed."""
    study, trials = study_of({"seed": [0, 1]})
    store = created(open_store, study)
    enqueue(store, trials)
    monkeypatch.setattr(queue, "this_process", lambda: this_process() | {"host": "elsewhere"})
    take(store), take(store)
    impatient = open_store(heartbeat=1, grace=2)
    impatient.open()
    recover(impatient)
    assert store.counts()["running"] == 2
    time.sleep(3.1)  # Optuna counts whole seconds
    recover(impatient)
    assert states(store)[:2] == ["FAIL", "FAIL"]
    time.sleep(2.1)
    recover(impatient)
    assert store.counts() == {"complete": 0, "failed": 0, "running": 0, "waiting": 2}


def test_a_clock_that_is_ahead(store: StudyStore, open_store: Open) -> None:
    """An attempt closed by a machine whose clock is two hours ahead, and not requeued, is requeued all the same."""
    store.study.tell(take(store), state=TrialState.FAIL)
    with store.storage.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE trials SET datetime_complete = datetime(datetime_complete, '+2 hours')")
    other = open_store()
    other.open()
    recover(other)
    assert states(other) == ["FAIL", "WAITING"]


def test_a_lost_duplicate_is_not_continued(store: StudyStore) -> None:
    """While another attempt at its trial runs there is nothing to requeue; once that one is lost too there is."""
    first = take(store)
    requeue(store, store.trials()[0])
    take(store).set_user_attr(WORKER, dead_worker())
    recover(store)
    assert states(store) == ["RUNNING", "FAIL"]
    assert unfinished_groups(store) == []
    first.set_user_attr(WORKER, dead_worker())
    store.heartbeat *= 1000
    assert not recover(store) or states(store) == ["FAIL", "FAIL"]
    assert [group[-1].number for group in unfinished_groups(store)] in ([], [1])
    store.heartbeat /= 10**6
    recover(store)
    assert states(store) == ["FAIL", "FAIL", "WAITING"]


def test_a_skipped_attempt_does_not_mark_the_next(store: StudyStore, result: Callable[..., Any]) -> None:
    """A failed trial whose attempt was skipped is retried as an ordinary trial. While that is lost the trial waits,
    though an older failure is on record."""
    record(store, result, status="failed", points=(), reason="the loss became nan")
    assert retry_failed(store) == 1
    skip(store, take(store), "not planned")
    assert store.counts()["failed"] == 1
    assert retry_failed(store) == 1
    again = take(store)
    assert SKIPPED not in again.user_attrs
    store.study.tell(again, state=TrialState.FAIL)
    assert [group[-1].number for group in unfinished_groups(store)] == [again.number]
    assert store.counts() == {"complete": 0, "failed": 0, "running": 0, "waiting": 1}


def test_a_crash_between_taking_and_signing(store: StudyStore, open_store: Open) -> None:
    """A worker killed after it took an attempt and before it recorded itself leaves no worker and no heartbeat. Such an
    attempt is lost after the grace period, and not before."""
    store.storage.set_trial_state_values(store.trials()[0]._trial_id, TrialState.RUNNING)
    recover(store)
    assert store.counts()["running"] == 1
    impatient = open_store(heartbeat=1, grace=2)
    impatient.open()
    time.sleep(2.1)
    recover(impatient)
    assert store.counts() == {"complete": 0, "failed": 0, "running": 0, "waiting": 1}


def test_a_claim_of_a_living_worker_waits(store: StudyStore) -> None:
    """While one of the workers that claimed an attempt lives, it may be the one that has it."""
    (attempt,) = store.trials()
    for name, process in {"dead": dead_worker(), "living": this_process()}.items():
        store.storage.set_trial_user_attr(attempt._trial_id, f"{CLAIM}{name}", process)
    store.storage.set_trial_state_values(attempt._trial_id, TrialState.RUNNING)
    recover(store)
    assert store.counts()["running"] == 1
    store.storage.set_trial_user_attr(attempt._trial_id, f"{CLAIM}living", dead_worker())
    recover(store)
    (again,) = store.trials(TrialState.WAITING)
    assert not any(name.startswith(CLAIM) for name in again.user_attrs)


def test_many_recoveries_at_once(store: StudyStore, open_store: Open) -> None:
    """Four workers that notice the same crash at the same time queue one attempt; none of them crashes."""
    take(store).set_user_attr(WORKER, dead_worker())
    stores = [open_store() for _ in range(4)]
    for one in stores:
        one.open()
    errors: list[BaseException] = []
    gate = threading.Barrier(4)

    def go(one: StudyStore) -> None:
        gate.wait()
        try:
            recover(one)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=go, args=(one,)) for one in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert states(store) == ["FAIL", "WAITING"]


def test_a_worker_that_crashes_while_it_recovers(
    store: StudyStore, open_store: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has closed an attempt and not requeued it. Until a heartbeat later another worker leaves that to it; nothing
    is lost meanwhile, and the attempt is requeued once."""
    take(store).set_user_attr(WORKER, dead_worker())
    others = [open_store(heartbeat=1, grace=2) for _ in range(2)]
    for one in others:
        one.open()
    with monkeypatch.context() as patch:
        patch.setattr(recovery, "_requeue", lambda store, group: None)
        recover(store)
    assert recover(others[0]), "something is left"
    assert states(store) == ["FAIL"]
    assert store.counts()["waiting"] == 1
    time.sleep(2.1)
    for one in others:
        recover(one)
    recover(store)
    assert states(store) == ["FAIL", "WAITING"]
