"""The queue: queued once, taken once, what continues an earlier attempt first."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy
from optuna.trial import TrialState
from stored_study import created, record

from rankopt.study.attempts import CONTINUES, INTERRUPTED, KEY, ORIGIN, WORKER, result_slot
from rankopt.study.process import this_process
from rankopt.study.queue import enqueue, propose, requeue, take
from rankopt.study.recovery import give_back
from rankopt.study.storage import StudyStore

# the package ignores this warning itself; pytest resets filters before every test
pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")

Open = Callable[..., StudyStore]
Study = Callable[..., Any]


def test_enqueue_once(open_store: Open, study_of: Study, result: Any) -> None:
    """A trial that waits, runs or is recorded is not queued again, by this store or another; the queue keeps the order
    of the plan."""
    study, trials = study_of()
    store = created(open_store, study)
    assert enqueue(store, trials) == 3
    assert enqueue(store, trials) == 0
    take(store)
    record(store, result)
    other = created(open_store, study)
    assert enqueue(other, trials) == 0
    assert [trial.user_attrs[KEY] for trial in other.trials()] == [spec.key for _, spec in trials]
    assert other.counts() == {"complete": 1, "failed": 0, "running": 1, "waiting": 1}
    assert other.open() == study


def test_equal_trials_of_a_plan_are_one(open_store: Open, study_of: Study) -> None:
    """A point listed twice is one trial."""
    study, trials = study_of()
    store = created(open_store, study)
    assert enqueue(store, [*trials, trials[0]]) == 3


def test_a_larger_grid_keeps_results(open_store: Open, study_of: Study, result: Any) -> None:
    """Seeds added later are queued, finished trials stay; a smaller grid counts and shows only its own trials, and no
    result is lost."""
    study, trials = study_of({"seed": [0, 1]})
    store = created(open_store, study)
    enqueue(store, trials)
    done = {record(store, result) for _ in trials}
    more, larger = study_of({"seed": [2, 0, 1, 3]})
    store.create(more)
    assert enqueue(store, larger) == 2
    assert {r.key for r in store.results()} == done
    assert store.counts() == {"complete": 2, "failed": 0, "running": 0, "waiting": 2}
    record(store, result)
    assert [r.key for r in store.results()] == [larger[0][1].key, *(spec.key for _, spec in trials)], "the plan's order"
    less, smaller = study_of({"seed": [1]})
    store.create(less)
    assert enqueue(store, smaller) == 0
    assert [r.key for r in store.results()] == [smaller[0][1].key]
    assert len(store.results(planned=False)) == 3
    assert store.counts() == {"complete": 1, "failed": 0, "running": 0, "waiting": 0}


def test_the_points_coordinates_are_shown(open_store: Open, study_of: Study) -> None:
    """Each trial carries its point of the space in plain values, for the dashboard."""
    allocators = [{"name": "uniform"}, {"name": "spectral", "rule": "cost"}]
    study, trials = study_of({"allocator": allocators, "task.name, training.lr": [["sst2", 0.001]], "seed": [4]})
    store = created(open_store, study)
    enqueue(store, trials)
    attrs = [trial.user_attrs for trial in store.trials()]
    assert [a["allocator"] for a in attrs] == ["uniform", "spectral(rule=cost)"]
    assert attrs[0]["seed"] == 4


def test_requeue_keeps_what_was_queued(open_store: Open, study_of: Study) -> None:
    """The next attempt has the attributes of the last one and its complete results, but no failure and no trace of its
    run; it names the attempts that it continues."""
    study, trials = study_of({"allocator": [{"name": "ramp"}], "seed": [5]})
    store = created(open_store, study)
    enqueue(store, trials)
    before = dict(store.trials()[0].user_attrs)
    trial = take(store)
    complete = {result_slot(0): {"status": "complete"}}
    traces = {WORKER: {"pid": 1}, INTERRUPTED: True, result_slot(1): {"status": "failed"}}
    for name, value in (complete | traces).items():
        trial.set_user_attr(name, value)
    requeue(store, store.storage.get_trial(trial._trial_id))
    assert store.trials(TrialState.WAITING)[0].user_attrs == before | complete | {ORIGIN: 0, CONTINUES: 0}


def test_a_taken_attempt_names_its_worker(open_store: Open, study_of: Study) -> None:
    """Before anything else is done with it, so that a crash right after it is noticed at once."""
    study, trials = study_of({"seed": [0]})
    store = created(open_store, study)
    enqueue(store, trials)
    take(store)
    assert store.trials()[0].user_attrs[WORKER] == this_process()


def test_an_attempt_is_taken_once(open_store: Open, study_of: Study) -> None:
    """Three workers that queue and take at the same time, slow between a read of the file and the write that follows:
    no two attempts have the same number, and none is taken twice."""
    study, trials = study_of({"seed": list(range(6))})
    enqueue(created(open_store, study), trials)
    stores = [open_store() for _ in range(3)]
    for one in stores:
        one.open()
        sqlalchemy.event.listen(one.storage.engine, "after_cursor_execute", linger)
    taken: list[int] = []
    gate = threading.Barrier(3)

    def go(one: StudyStore) -> None:
        gate.wait()
        for _ in range(2):
            propose(one)
        gate.wait()
        while trial := take(one):
            taken.append(trial.number)

    threads = [threading.Thread(target=go, args=(one,)) for one in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == list(range(12))


def linger(*details: Any) -> None:
    """After a statement: long enough for another thread to get in between."""
    if "FROM trials" in details[2]:
        time.sleep(0.01)


def test_what_was_begun_comes_first(open_store: Open, study_of: Study) -> None:
    """An interrupted trial is taken before those that never ran."""
    study, trials = study_of({"seed": [0, 1, 2]})
    store = created(open_store, study)
    enqueue(store, trials)
    interrupted = take(store)
    assert interrupted is not None
    give_back(store, interrupted)
    assert [trial.user_attrs[KEY] for trial in iter(lambda: take(store), None)] == [spec.key for _, spec in trials]
