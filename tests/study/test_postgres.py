"""Studies on a real PostgreSQL: one queue for several workers, and a server that goes away."""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from optuna.storages import RDBStorage
from optuna.trial import TrialState

sys.path.insert(0, str(Path(__file__).parents[1]))  # tests are no package; the script beside them shares this module
from postgres import SERVER, database, why_not

from rankopt.core.study_spec import StudySpec
from rankopt.study import database as database_module
from rankopt.study.attempts import origin
from rankopt.study.events import Event, Message, WorkerStopped
from rankopt.study.job import Job, RunOptions
from rankopt.study.queue import propose, take
from rankopt.study.recovery import recover
from rankopt.study.storage import StudyStore
from rankopt.study.worker import work
from rankopt.training import trial as trial_module

pytestmark = [
    pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning"),
    pytest.mark.skipif(bool(why_not()), reason=f"there is no PostgreSQL at {SERVER} (or RANKOPT_TEST_POSTGRES)"),
]

Run = Callable[..., Any]


class Proxy:
    """A door between a worker and its database that can be shut and opened again."""

    def __init__(self, host: str, port: int) -> None:
        self.target, self.open_sockets = (host, port), set[socket.socket]()
        self.listener = self._listen(0)
        self.port = self.listener.getsockname()[1]

    def _listen(self, port: int) -> socket.socket:
        listener = socket.create_server(("127.0.0.1", port))
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()
        return listener

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            far = socket.create_connection(self.target)
            self.open_sockets |= {near, far}
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=self._pump, args=(one, other), daemon=True).start()

    def _pump(self, one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError):
            while data := one.recv(65536):
                other.sendall(data)
        self._end(one, other)

    def _end(self, *sockets: socket.socket) -> None:
        for one in sockets:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
            self.open_sockets.discard(one)

    def shut(self) -> None:
        self._end(self.listener)
        self._end(*list(self.open_sockets))

    def mend(self) -> None:
        self.listener = self._listen(self.port)


@pytest.fixture
def url() -> Iterator[str]:
    with database() as url:
        yield url


@pytest.fixture
def proxy(url: str) -> Iterator[tuple[Proxy, str]]:
    """A door to a database of the test's own, and the URL through it."""
    address = sqlalchemy.make_url(url)
    door = Proxy(address.host or "127.0.0.1", address.port or 5432)
    through = address.set(host="127.0.0.1", port=door.port)
    yield door, through.render_as_string(hide_password=False)
    door.shut()


@pytest.fixture
def study(tiny_trial: Run) -> StudySpec:
    space = {"training.lr": {"float": [1e-4, 1e-2], "log": True}}
    return StudySpec.model_validate(
        {"name": "tiny", "base": tiny_trial(), "space": space, "search": {"name": "tpe", "trials": 12}}
    )


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch, result: Run) -> Callable[[Run], None]:
    """Replaces training by a call of the test's."""

    def use(before: Run) -> None:
        def run(spec: Any, folder: Path, *_: Any) -> Any:
            before(spec)
            (folder / "adapter").mkdir(parents=True, exist_ok=True)
            (folder / "adapter" / "weights").write_text(spec.key)
            (folder / "predictions.npz").write_text(spec.key)
            return result(spec, spec.training.lr)

        monkeypatch.setattr(trial_module, "run_trial", run)

    return use


def test_a_study_on_a_server(url: str, study: StudySpec, stand_in: Run, tmp_path: Path) -> None:
    """Made, run, opened from another folder, with its artifacts at a place of their own that the study remembers."""
    stand_in(lambda spec: None)
    shared = str(tmp_path / "shared")
    StudyStore(url, "tiny", tmp_path / "one", artifacts=shared).create(study)
    work(Job(0, "tiny", RunOptions(url, tmp_path / "two")), lambda event: None)
    store = StudyStore(url, "tiny", tmp_path / "three")
    assert store.open() == study
    assert store.counts() == {"complete": 12, "pruned": 0, "failed": 0, "running": 0, "waiting": 0}
    trial = store.trials()[3]
    store.artifacts.download([trial], f"{trial.user_attrs['key']}-predictions.npz", tmp_path / "fetched")
    assert (tmp_path / "fetched").read_text() == trial.user_attrs["key"]
    assert len(list((tmp_path / "shared").iterdir())) == 24


def test_a_server_that_goes_away(
    proxy: tuple[Proxy, str], study: StudySpec, stand_in: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut off while a trial runs, the worker says so once, waits, says that it goes on, and every trial is complete,
    once. The heartbeat that fell into the gap kills nothing."""
    door, url = proxy
    monkeypatch.setattr(database_module, "PAUSE", 0.2)
    calls = []

    def cut(spec: Any) -> None:
        calls.append(spec.key)
        if len(calls) == 5:
            door.shut()
            threading.Timer(3.0, door.mend).start()
            time.sleep(1.5)

    stand_in(cut)
    events: list[Event] = []
    StudyStore(url, "tiny", tmp_path).create(study)
    work(Job(0, "tiny", RunOptions(url, tmp_path, heartbeat=1, grace=2)), events.append)
    said = [event.text for event in events if isinstance(event, Message)]
    assert len(said) == 2, said
    assert said[0].startswith("the storage does not answer (")
    assert said[0].endswith("); waiting up to 300 s for it")
    assert said[1].startswith("the storage answers again after ")
    store = StudyStore(url, "tiny", tmp_path)
    store.open()
    assert [trial.state.name for trial in store.trials()] == ["COMPLETE"] * 12
    assert len(calls) == len(set(calls)) == 12


def test_patience_ends(
    proxy: tuple[Proxy, str], study: StudySpec, stand_in: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that stays away ends the worker with one line that says what to do; once it is back nothing is lost."""
    door, url = proxy
    monkeypatch.setattr(database_module, "PAUSE", 0.1)
    monkeypatch.setattr("rankopt.study.worker.PATIENCE", 1.0)
    calls = []

    def cut(spec: Any) -> None:
        calls.append(spec.key)
        if len(calls) == 3:
            door.shut()

    stand_in(cut)
    events: list[Event] = []
    StudyStore(url, "tiny", tmp_path).create(study)
    work(Job(0, "tiny", RunOptions(url, tmp_path, heartbeat=1, grace=2)), events.append)
    assert isinstance(events[-1], WorkerStopped)
    assert events[-1].text.startswith("storage error (")
    assert "\n" not in events[-1].text
    door.mend()
    store = StudyStore(url, "tiny", tmp_path, heartbeat=1, grace=2)
    store.open()
    running = [trial for trial in store.trials() if trial.state.name == "RUNNING"]
    gone = running[0].user_attrs["worker"] | {"started": 0.0}  # as if the process had ended too
    store.storage.set_trial_user_attr(running[0]._trial_id, "worker", gone)
    work(Job(0, "tiny", RunOptions(url, tmp_path, heartbeat=1, grace=2)), events.append)
    assert store.counts() == {"complete": 12, "pruned": 0, "failed": 0, "running": 0, "waiting": 0}
    assert calls[2] == calls[3], "the trial that was cut off is trained again"


def test_a_wrong_address_is_refused_at_once(tmp_path: Path) -> None:
    """Not waited for: nobody has seen it answer yet."""
    began = time.monotonic()
    wrong = str(sqlalchemy.make_url(SERVER).set(database="no_such_database", password="secret", port=1))
    with pytest.raises(ConnectionError, match="cannot be opened") as caught:
        StudyStore(wrong.replace("***", "secret"), "tiny", tmp_path, patience=300)
    assert "secret" not in str(caught.value)
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("method", ["_create_new_trial", "set_trial_state_values", "set_trial_user_attr"])
def test_a_lost_answer_counts_nothing_twice(
    method: str, url: str, study: StudySpec, stand_in: Run, tmp_path: Path, monkeypatch: Any
) -> None:
    """The server carries a call out and breaks the connection before it answers, again and again: every trial is
    complete once, and none is trained twice."""
    calls: list[str] = []
    stand_in(lambda spec: calls.append(spec.key))
    store = StudyStore(url, "tiny", tmp_path)
    store.create(study)
    real, count = getattr(RDBStorage, method), 0

    def sometimes_lost(self: Any, *args: Any, **options: Any) -> Any:
        nonlocal count
        count += 1
        answer = real(self, *args, **options)
        if count % 13 == 0:
            broken = Exception("server closed the connection unexpectedly")
            raise sqlalchemy.exc.OperationalError("UPDATE", {}, broken, connection_invalidated=True)
        return answer

    monkeypatch.setattr(RDBStorage, method, sometimes_lost)
    work(Job(0, "tiny", RunOptions(url, tmp_path, heartbeat=1, grace=2)), lambda event: None)
    assert store.counts() == {"complete": 12, "pruned": 0, "failed": 0, "running": 0, "waiting": 0}
    complete = [origin(attempt) for attempt in store.trials(TrialState.COMPLETE)]
    assert len(complete) == len(set(complete)) == len(store.results()) == 12
    assert len(calls) == len(set(calls)) == 12


def test_an_outage_is_no_death(url: str, study: StudySpec, tmp_path: Path) -> None:
    """Another machine's trial whose heartbeat fell into the gap: nobody takes it up until it could send one again."""
    store = StudyStore(url, "tiny", tmp_path, heartbeat=1, grace=2, patience=5)
    store.create(study)
    propose(store)
    trial = take(store)
    store.storage.record_heartbeat(trial._trial_id)
    store.storage.set_trial_user_attr(trial._trial_id, "worker", {"host": "elsewhere", "pid": 1, "started": 0.0})
    time.sleep(3.5)
    store.connector.back_since = time.monotonic()
    recover(store)
    assert store.trials()[0].state == TrialState.RUNNING
    time.sleep(2.1)
    recover(store)
    assert store.trials()[0].state == TrialState.FAIL
