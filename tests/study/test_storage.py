"""Optuna's storage as queue and record: queued once, recorded for good, dead workers' trials back in the queue."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from rankopt.core.result import TrialResult
from rankopt.core.study_spec import StudySpec
from rankopt.study import database
from rankopt.study.attempts import (
    ALONE,
    CONTINUES,
    DROPPED,
    INTERRUPTED,
    KEY,
    ORIGIN,
    RESULT,
    SPEC,
    WORKER,
    result_slot,
    this_worker,
)  # fmt: skip
from rankopt.study.storage import StudyStore
from rankopt.study.storage_url import sqlite_url

# the package ignores this warning itself; pytest resets filters before every test
pytestmark = [
    pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning"),
    pytest.mark.filterwarnings("ignore:Heartbeat of storage is supposed to be used"),  # here `ask` is enough
]

Open = Callable[..., StudyStore]
Study = Callable[..., Any]


def created(open_store: Open, study: StudySpec) -> StudyStore:
    store = open_store(study.name)
    store.create(study)
    return store


def record(store: StudyStore, result: Callable[..., TrialResult], **changes: Any) -> str:
    """Take the next waiting trial and record a result of it, as a worker does; returns its key."""
    from rankopt.core.trial_spec import TrialSpec, decode

    trial = store.study.ask()
    made = result(decode(TrialSpec, trial.user_attrs[SPEC]), **changes)
    trial.set_user_attr(RESULT, made.model_dump(mode="json"))
    if made.status == "complete":
        store.study.tell(trial, [made.score("search"), made.own.kept])
    else:
        store.study.tell(trial, state=TrialState.FAIL)
    return made.key


def dead_worker() -> dict[str, Any]:
    """A process of this machine that is gone."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return this_worker() | {"pid": process.pid}


def test_enqueue_once(open_store: Open, study_of: Study, result: Any) -> None:
    """Queued trials are not queued again, whether they wait, run or are recorded, by this store or another; the queue
    keeps the order of the plan."""
    study, trials = study_of()
    store = created(open_store, study)
    assert store.enqueue(trials) == 3
    assert store.enqueue(trials) == 0
    store.study.ask()
    record(store, result)
    other = created(open_store, study)
    assert other.enqueue(trials) == 0
    assert [trial.user_attrs[KEY] for trial in other.trials()] == [spec.key for _, spec in trials]
    assert other.counts() == {"complete": 1, "failed": 0, "running": 1, "waiting": 1}
    assert other.open() == study


def test_equal_trials_of_a_plan_are_one(open_store: Open, study_of: Study) -> None:
    """A point listed twice is one trial."""
    study, trials = study_of()
    store = created(open_store, study)
    assert store.enqueue([*trials, trials[0]]) == 3


def test_a_larger_grid_keeps_results(open_store: Open, study_of: Study, result: Any) -> None:
    """Seeds added later are queued, the finished ones stay; a smaller grid counts and shows only its own trials and
    forgets nothing."""
    study, trials = study_of({"seed": [0, 1]})
    store = created(open_store, study)
    store.enqueue(trials)
    done = {record(store, result) for _ in trials}
    more, larger = study_of({"seed": [2, 0, 1, 3]})
    store.create(more)
    assert store.enqueue(larger) == 2
    assert {r.key for r in store.results()} == done
    assert store.counts() == {"complete": 2, "failed": 0, "running": 0, "waiting": 2}
    record(store, result)
    assert [r.key for r in store.results()] == [larger[0][1].key, *(spec.key for _, spec in trials)], "the plan's order"
    less, smaller = study_of({"seed": [1]})
    store.create(less)
    assert store.enqueue(smaller) == 0
    assert [r.key for r in store.results()] == [smaller[0][1].key]
    assert len(store.results(planned=False)) == 3
    assert store.counts() == {"complete": 1, "failed": 0, "running": 0, "waiting": 0}


def test_complete_beats_failed(open_store: Open, study_of: Study, result: Any) -> None:
    """One result per key: a failure is shown until a later try completes, and never after."""
    study, trials = study_of({"seed": [0]})
    store = created(open_store, study)
    store.enqueue(trials)
    failure = {"status": "failed", "points": (), "reason": "the loss became nan at step 3 of 9"}
    record(store, result, **failure)
    assert store.enqueue(trials) == 0, "a failure is a record: it is not repeated unasked"
    assert [r.reason for r in store.results()] == ["the loss became nan at step 3 of 9"]
    assert store.counts() == {"complete": 0, "failed": 1, "running": 0, "waiting": 0}
    assert store.retry_failed() == 1
    assert store.retry_failed() == 0, "it waits already"
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
    assert store.retry_failed() == 0


def test_the_points_coordinates_are_shown(open_store: Open, study_of: Study) -> None:
    """Each trial carries its point of the space in plain values, for the dashboard."""
    allocators = [{"name": "uniform"}, {"name": "spectral", "rule": "cost"}]
    study, trials = study_of({"allocator": allocators, "task.name, training.lr": [["sst2", 0.001]], "seed": [4]})
    store = created(open_store, study)
    store.enqueue(trials)
    attrs = [trial.user_attrs for trial in store.trials()]
    assert [a["allocator"] for a in attrs] == ["uniform", "spectral(rule=cost)"]
    assert attrs[0]["seed"] == 4


def test_objectives_cannot_change(open_store: Open, study_of: Study) -> None:
    """A study made for two objectives is not reopened for one; the message says what to do."""
    created(open_store, study_of()[0])
    other, _ = study_of(objectives={"score": "maximize"})
    with pytest.raises(ValueError, match=r"objectives must stay .*choose another name"):
        open_store().create(other)


def test_an_unknown_study_is_named(open_store: Open, study_of: Study) -> None:
    """Asking for a study that is not there lists those that are."""
    created(open_store, study_of()[0])
    with pytest.raises(ValueError, match=r"study 'other' must be in the storage .* holds: tiny"):
        open_store("other").open()


def test_a_study_without_a_spec(open_store: Open) -> None:
    """Another program's, or one whose maker has not come so far: one line, and not its missing key."""
    store = open_store("other")
    optuna.create_study(storage=store.storage, study_name="other")
    with pytest.raises(ValueError, match=r"'other' .* must have a spec, .* is being made at this moment"):
        store.open()


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:secret@127.0.0.1:1/db",
        "mysql+nodriver://me:secret@127.0.0.1:1/db",
        "sqlite:////no/such/folder/study.db",
        "no url",
        "sqlite:///{tmp}/garbage.db",
    ],
)
def test_a_storage_that_cannot_be_opened_is_one_line(url: str, tmp_path: Path) -> None:
    """Wrong address, missing driver or folder, no URL, no database: the machine's refusal, one line, no password."""
    (tmp_path / "garbage.db").write_bytes(b"this is no database, and never was one" * 40)
    with pytest.raises(ConnectionError, match="cannot be opened") as caught:
        StudyStore(url.format(tmp=tmp_path), "s", tmp_path)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "check the address" in str(caught.value)


def test_a_dead_workers_trial_is_queued_again(open_store: Open, study_of: Study) -> None:
    """A running trial of a process that is gone from this machine is recorded as fallen and queued anew with its spec;
    one of a living process, or of another machine, is left alone."""
    study, trials = study_of()
    store = created(open_store, study)
    store.enqueue(trials)
    workers = (dead_worker(), this_worker(), dead_worker() | {"host": "elsewhere"})
    for worker in workers:
        store.study.ask().set_user_attr(WORKER, worker)
    open_store().open()
    for _ in range(2):
        store.recover()
        states = [trial.state.name for trial in store.trials()]
        assert states == ["FAIL", "RUNNING", "RUNNING", "WAITING"], "and once only"
    again = store.trials()[3]
    assert again.user_attrs[KEY] == trials[0][1].key
    assert again.user_attrs[SPEC] == trials[0][1].plain
    assert WORKER not in again.user_attrs
    assert store.counts() == {"complete": 0, "failed": 0, "running": 2, "waiting": 1}
    assert store.enqueue(trials) == 0


def test_a_recycled_process_id_is_not_the_worker(open_store: Open, study_of: Study) -> None:
    """The same number, started at another time, is another process."""
    study, trials = study_of({"seed": [0]})
    store = created(open_store, study)
    store.enqueue(trials)
    worker = this_worker()
    store.study.ask().set_user_attr(WORKER, worker | {"started": worker["started"] - 100})
    store.recover()
    assert [trial.state.name for trial in store.trials()] == ["FAIL", "WAITING"]


def test_four_deaths_are_a_failure(open_store: Open, study_of: Study) -> None:
    """A trial is tried again after three deaths; the fourth is a recorded failure that says so, and nothing waits."""
    study, trials = study_of({"seed": [0]})
    store = created(open_store, study)
    store.enqueue(trials)
    for death in range(4):
        assert store.counts()["waiting"] == 1, death
        trial = store.study.ask()
        trial.set_user_attr(WORKER, dead_worker())
        trial.set_user_attr(ALONE, 0)
        store.recover()
    assert store.counts() == {"complete": 0, "failed": 1, "running": 0, "waiting": 0}
    failure = store.results()[0]
    assert failure.reason == "its worker died 4 times (killed, or out of memory)"
    assert TrialResult.model_validate_json(failure.model_dump_json()) == failure
    assert store.retry_failed() == 1
    again = store.trials(TrialState.WAITING)[0]
    assert set(again.user_attrs) == {SPEC, KEY, ORIGIN, CONTINUES, "seed"}


def test_deaths_in_company_are_no_failure(open_store: Open, study_of: Study) -> None:
    """Another trial may be at fault. They are known, so that the next try is made alone, where four deaths count."""
    study, trials = study_of({"seed": [0]})
    store = created(open_store, study)
    store.enqueue(trials)
    for death, alone in enumerate([False] * 5 + [True] * 4):
        assert store.counts()["waiting"] == 1, death
        waiting = store.trials(TrialState.WAITING)[0]
        assert len(store.deaths(waiting)) == death
        assert ALONE not in waiting.user_attrs
        trial = store.study.ask()
        trial.set_user_attr(WORKER, dead_worker())
        if alone:
            trial.set_user_attr(ALONE, 0)
        store.recover()
    assert store.results()[0].reason == "its worker died 4 times (killed, or out of memory)"


def test_interruptions_are_no_deaths(open_store: Open, study_of: Study) -> None:
    """A trial given back five times is still only waiting."""
    study, trials = study_of({"seed": [0]})
    store = created(open_store, study)
    store.enqueue(trials)
    for _ in range(5):
        trial = store.study.ask()
        trial.set_user_attr(WORKER, dead_worker())
        trial.set_user_attr(INTERRUPTED, True)
        store.requeue(store.storage.get_trial(trial._trial_id))
        store.study.tell(trial, state=TrialState.FAIL)
    store.study.ask().set_user_attr(WORKER, dead_worker())
    store.recover()
    assert store.counts() == {"complete": 0, "failed": 0, "running": 0, "waiting": 1}


def test_requeue_keeps_what_was_queued(open_store: Open, study_of: Study) -> None:
    """The copy has the attributes of the original without the traces of its run (a failure; what is complete stays),
    and says whose copy it is."""
    study, trials = study_of({"allocator": [{"name": "ramp"}], "seed": [5]})
    store = created(open_store, study)
    store.enqueue(trials)
    before = dict(store.trials()[0].user_attrs)
    trial = store.study.ask()
    complete = {result_slot(0): {"status": "complete"}}
    traces = {WORKER: {"pid": 1}, INTERRUPTED: True, result_slot(1): {"status": "failed"}}
    for name, value in (complete | traces).items():
        trial.set_user_attr(name, value)
    store.requeue(store.storage.get_trial(trial._trial_id))
    assert store.trials(TrialState.WAITING)[0].user_attrs == before | complete | {ORIGIN: 0, CONTINUES: 0}


def test_a_taken_trial_is_signed(open_store: Open, study_of: Study) -> None:
    """A queued one too, before anything else is done with it, so that a death right after it is seen at once."""
    study, trials = study_of({"seed": [0]})
    store = created(open_store, study)
    store.enqueue(trials)
    store.study.ask()
    assert store.trials()[0].user_attrs[WORKER] == this_worker()


def test_a_machine_lost_before_the_first_heartbeat(
    open_store: Open, study_of: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Optuna sends one once a sampler has proposed. What is taken or made has one from the start, so that it is not
    waited for for ever."""
    study, trials = study_of({"seed": [0]})
    store = created(open_store, study)
    store.enqueue(trials)
    monkeypatch.setattr(database, "this_worker", lambda: this_worker() | {"host": "elsewhere"})
    taken, made = store.study.ask(), store.study.ask()
    impatient = open_store(heartbeat=1, grace=2)
    impatient.open()
    impatient.recover()
    assert store.counts()["running"] == 1
    time.sleep(3.1)  # Optuna counts whole seconds
    impatient.recover()
    states = [store.trials()[trial.number].state for trial in (taken, made)]
    assert states == [TrialState.FAIL, TrialState.FAIL]
    assert store.counts() == {"complete": 0, "failed": 0, "running": 0, "waiting": 1}


def test_a_clock_that_is_ahead(open_store: Open, study_of: Study) -> None:
    """What a machine closed whose clock is two hours ahead, and did not queue, is made up for all the same."""
    study, trials = study_of({"seed": [0]})
    store = created(open_store, study)
    store.enqueue(trials)
    store.study.tell(store.study.ask(), state=TrialState.FAIL)
    with store.storage.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE trials SET datetime_complete = datetime(datetime_complete, '+2 hours')")
    other = open_store()
    other.open()
    other.recover()
    assert [trial.state.name for trial in other.trials()] == ["FAIL", "WAITING"]


def test_a_twin_that_fell_is_not_continued(open_store: Open, study_of: Study) -> None:
    """While another try of its proposal runs or waits there is nothing to make up for; once that one fell too the last
    is made up for."""
    study, trials = study_of({"seed": [0]})
    store = created(open_store, study)
    store.enqueue(trials)
    first = store.study.ask()
    store.requeue(store.trials()[0])
    store.study.ask().set_user_attr(WORKER, dead_worker())
    store.recover()
    assert [trial.state.name for trial in store.trials()] == ["RUNNING", "FAIL"]
    assert store.fallen() == []
    first.set_user_attr(WORKER, dead_worker())
    store.recover()
    assert [trial.number for trial in store.fallen()] == [1]


def test_a_dropped_copy_is_no_mark_on_the_next(open_store: Open, study_of: Study, result: Callable[..., Any]) -> None:
    """A failed trial whose copy was dropped is retried as an ordinary trial, which counts and is continued. While it
    has fallen it waits, though an older failure is on record."""
    study, trials = study_of({"seed": [0]})
    store = created(open_store, study)
    store.enqueue(trials)
    record(store, result, status="failed", points=(), reason="the loss became nan")
    assert store.retry_failed() == 1
    dropped = store.study.ask()
    dropped.set_user_attr(DROPPED, "not planned")
    store.study.tell(dropped, state=TrialState.FAIL)
    assert store.counts()["failed"] == 1
    assert store.retry_failed() == 1
    again = store.study.ask()
    assert DROPPED not in again.user_attrs
    store.study.tell(again, state=TrialState.FAIL)
    assert [trial.number for trial in store.fallen()] == [again.number]
    assert store.counts() == {"complete": 0, "failed": 0, "running": 0, "waiting": 1}


def test_a_death_between_taking_and_signing(open_store: Open, study_of: Study) -> None:
    """A worker killed after it took a trial and before it signed it leaves no worker and no heartbeat; such a trial is
    taken up too once it has been silent for the grace period, and not before."""
    study, trials = study_of({"seed": [0]})
    store = created(open_store, study)
    store.enqueue(trials)
    RDBStorage.set_trial_state_values(store.storage, store.trials()[0]._trial_id, TrialState.RUNNING)
    store.recover()
    assert store.counts()["running"] == 1
    impatient = open_store(heartbeat=1, grace=2)
    impatient.open()
    time.sleep(2.1)
    impatient.recover()
    assert store.counts() == {"complete": 0, "failed": 0, "running": 0, "waiting": 1}


def test_many_recoveries_at_once(open_store: Open, study_of: Study) -> None:
    """Four workers that notice the same death at the same time leave one try to be run; none of them crashes."""
    study, trials = study_of({"seed": [0]})
    store = created(open_store, study)
    store.enqueue(trials)
    store.study.ask().set_user_attr(WORKER, dead_worker())
    stores = [open_store() for _ in range(4)]
    for one in stores:
        one.open()
    errors: list[BaseException] = []
    gate = threading.Barrier(4)

    def go(one: StudyStore) -> None:
        gate.wait()
        try:
            one.recover()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=go, args=(one,)) for one in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert [trial.state.name for trial in store.trials()] == ["FAIL", "WAITING"]


def test_a_death_is_recovered_from_once(open_store: Open, study_of: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one worker closes a trial and before it queues it again, another one looks: nothing runs, and still it is
    not its turn. It is after a heartbeat, when the first has died of it; who comes after that finds a later try."""
    study, trials = study_of({"seed": [0]})
    store = created(open_store, study)
    store.enqueue(trials)
    store.study.ask().set_user_attr(WORKER, dead_worker())
    others = [open_store(heartbeat=1, grace=2) for _ in range(2)]
    for one in others:
        one.open()
    tell, revive = store.study.tell, store._revive
    seen: list[list[str]] = []

    def slowly(*args: Any, **kwargs: Any) -> None:
        tell(*args, **kwargs)
        others[0].recover()
        seen.append([trial.state.name for trial in store.trials()])

    monkeypatch.setattr(store.study, "tell", slowly)
    monkeypatch.setattr(store, "_revive", lambda study, trial: None)  # it dies of it
    store.recover()
    assert seen == [["FAIL"]]
    assert store.counts()["waiting"] == 1, "nothing is lost meanwhile"
    time.sleep(1.1)
    for one in others:
        one.recover()
    revive(store.study, store.trials(TrialState.FAIL)[0])
    assert [trial.state.name for trial in store.trials()] == ["FAIL", "WAITING"]


def test_a_trial_is_taken_once(open_store: Open, study_of: Study) -> None:
    """Three workers that ask at the same time, slow between a look at the file and the write that follows: nobody gets
    what another one got, neither queued trials nor numbers of new ones."""
    study, trials = study_of({"seed": list(range(6))})
    created(open_store, study).enqueue(trials)
    stores = [open_store() for _ in range(3)]
    for one in stores:
        one.open()
        sqlalchemy.event.listen(one.storage.engine, "after_cursor_execute", linger)
    taken: list[int] = []
    gate = threading.Barrier(3)

    def go(one: StudyStore) -> None:
        gate.wait()
        taken.extend(one.study.ask().number for _ in range(4))

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


def test_artifacts(open_store: Open, study_of: Study, tmp_path: Path) -> None:
    """A file and a folder come back as they were, the folder as a zip; a missing one is a line."""
    import zipfile

    study, trials = study_of({"seed": [0]})
    store = created(open_store, study)
    store.enqueue(trials)
    trial = store.study.ask()
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "weights").write_bytes(b"abc")
    (tmp_path / "predictions.npz").write_bytes(b"xyz")
    for name in ("adapter", "predictions.npz"):
        store.upload(trial, tmp_path / name, "key")
    frozen = store.trials()[0]
    store.download([frozen], "key-predictions.npz", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == b"xyz"
    store.download([frozen], "key-adapter.zip", tmp_path / "back.zip")
    assert zipfile.ZipFile(tmp_path / "back.zip").read("weights") == b"abc"
    with pytest.raises(ValueError, match="must have an artifact 'nothing'"):
        store.download([frozen], "nothing", tmp_path / "x")


def test_an_earlier_attempts_artifact_is_found(open_store: Open, study_of: Study, tmp_path: Path) -> None:
    """A worker that died after storing the adapter left it with its attempt; the trial's later attempt finds it."""
    study, trials = study_of({"seed": [0]})
    store = created(open_store, study)
    store.enqueue(trials)
    (tmp_path / "predictions.npz").write_bytes(b"xyz")
    store.upload(store.study.ask(), tmp_path / "predictions.npz", "key")
    store.requeue(store.trials()[0])
    store.download(reversed(store.trials()), "key-predictions.npz", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == b"xyz"


def test_a_grace_shorter_than_two_heartbeats_is_refused(open_store: Open) -> None:
    """It would declare living trials dead."""
    with pytest.raises(ValueError, match="--grace must be at least twice --heartbeat 60, got 100"):
        open_store(heartbeat=60, grace=100)


@pytest.mark.parametrize("name", ["plain", "odd ?dir#%41 é&x=1"])
def test_the_database_lies_in_the_folder(name: str, tmp_path: Path) -> None:
    """Whatever characters a folder's name has, its database is in it and nowhere else."""
    folder = tmp_path / name
    folder.mkdir()
    StudyStore(sqlite_url(folder), "s", folder)
    assert (folder / "study.db").is_file()
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_storages_made_at_once(tmp_path: Path) -> None:
    """Several processes that start the same study at the same moment all open it."""
    code = (
        "import sys, pathlib, time; from rankopt.study.storage import *; from rankopt.study.storage_url import *;"
        " f = pathlib.Path(sys.argv[1]); time.sleep(max(0, float(sys.argv[2]) - time.time()));"
        " StudyStore(sqlite_url(f), 's', f)"
    )
    words = [sys.executable, "-c", code, str(tmp_path), str(time.time() + 3)]
    runs = [subprocess.Popen(words, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    errors = [run.communicate(timeout=120)[1] for run in runs]
    assert [run.returncode for run in runs] == [0] * 4, errors


@pytest.mark.parametrize("place", ["alembic_version", "version_info"])
def test_a_storage_that_another_run_just_made(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever loses the race for a row of the storage's own looks again, and finds what it wanted to write."""
    monkeypatch.setattr(database, "PAUSE", 0.0)
    made = database.FileStorage.__init__
    tries: list[str] = []

    def beaten(self: Any, *args: Any, **more: Any) -> None:
        tries.append(place)
        made(self, *args, **more)
        if len(tries) < 3:
            self.engine.connect().exec_driver_sql(f"INSERT INTO {place} SELECT * FROM {place}")

    monkeypatch.setattr(database.FileStorage, "__init__", beaten)
    StudyStore(sqlite_url(tmp_path), "s", tmp_path)
    assert len(tries) == 3


def test_the_dashboard_opens_the_storage(open_store: Open, study_of: Study, result: Any, tmp_path: Path) -> None:
    """optuna-dashboard's application lists the study and serves its trials, with our attributes and artifacts."""
    dashboard = pytest.importorskip("optuna_dashboard")
    study, trials = study_of()
    store = created(open_store, study)
    store.enqueue(trials)
    key = record(store, result)
    app = dashboard.wsgi(sqlite_url(tmp_path))

    def get(path: str) -> Any:
        status: list[str] = []
        environ = {
            "REQUEST_METHOD": "GET",
            "PATH_INFO": path,
            "QUERY_STRING": "",
            "SERVER_NAME": "localhost",
            "SERVER_PORT": "80",
            "wsgi.input": io.BytesIO(),
            "wsgi.errors": io.StringIO(),
            "wsgi.url_scheme": "http",
        }
        body = b"".join(app(environ, lambda code, headers, info=None: status.append(code)))
        assert status[0].startswith("200"), (path, status, body[:300])
        return json.loads(body)

    listed = get("/api/studies")
    rows = listed.get("studies") or listed["study_summaries"]
    assert [row["study_name"] for row in rows] == ["tiny"]
    detail = get(f"/api/studies/{rows[0]['study_id']}")
    assert len(detail["trials"]) == 3
    assert key in json.dumps(detail["trials"][0]["user_attrs"])
    assert detail["objective_names"] == ["score", "parameters"]
