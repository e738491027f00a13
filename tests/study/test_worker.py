"""One worker's loop, in this process and with stand-in trials: what it records, what it gives back, what it leaves."""

from __future__ import annotations

import errno
import io
import resource
import signal
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState, create_trial
from rich.console import Console

from rankopt.core.progress import Control, Progress
from rankopt.core.result import TrialResult
from rankopt.study import recovery
from rankopt.study.attempts import ALONE, INTERRUPTED, KEY, RESULT, SKIPPED, WORKER, recorded
from rankopt.study.events import (
    Event,
    LogMessage,
    TrialAdvanced,
    TrialEnded,
    TrialInterrupted,
    TrialStarted,
    WorkerStopped,
)
from rankopt.study.job import Job, RunOptions
from rankopt.study.process import this_process
from rankopt.study.progress import Display
from rankopt.study.queue import enqueue, requeue, retry_failed, take
from rankopt.study.storage import StudyStore
from rankopt.study.storage_url import sqlite_url
from rankopt.study.tracking import NullTracker
from rankopt.study.worker import work
from rankopt.training import trial as trial_module
from rankopt.training.checkpoint import CorruptCheckpointError
from rankopt.training.train import InterruptedTrialError

# the package ignores this warning itself; pytest resets filters before every test
pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")

Run = Callable[..., Any]


@pytest.fixture
def queue(open_store: Callable[..., StudyStore], study_of: Run) -> Callable[..., StudyStore]:
    """A store with a study's trials queued."""

    def make(space: dict[str, Any] | None = None, **more: Any) -> StudyStore:
        study, trials = study_of(space, **more)
        store = open_store()
        store.create(study)
        enqueue(store, trials)
        return store

    return make


@pytest.fixture
def work_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, result: Run) -> Callable[..., list[Event]]:
    """Runs one worker over the queue with a stand-in for `run_trial`, and returns what it told."""

    def go(stand_in: Run | None = None, steps: int = 1) -> list[Event]:
        def run(spec: Any, folder: Path, control: Control, *_: Any) -> Any:
            (folder / "adapter").mkdir(parents=True, exist_ok=True)
            (folder / "adapter" / "weights").write_text(spec.key)
            (folder / "predictions.npz").write_text(spec.key)
            for step in range(1, steps + 1):
                control.observe(Progress(step, steps, "train", {"loss": 1.0}, {"a": 2}))
            if stand_in is not None and (made := stand_in(spec, control.stop)) is not None:
                return made
            return result(spec, 0.5 + spec.seed / 100)

        monkeypatch.setattr(trial_module, "run_trial", run)
        events: list[Event] = []
        work(Job(0, "tiny", RunOptions(sqlite_url(tmp_path), tmp_path)), events.append)
        return events

    return go


def kinds(events: list[Event]) -> list[type[Event]]:
    return [type(event) for event in events if not isinstance(event, TrialAdvanced)]


def test_everything_once(queue: Run, work_through: Run, tmp_path: Path) -> None:
    """Each trial is run, recorded with its values in the order of the objectives, its artifacts stored, its folder
    removed; a second worker finds nothing to do."""
    store = queue(objectives={"parameters": "minimize", "score": "maximize"})
    events = work_through()
    assert kinds(events) == [TrialStarted, TrialEnded] * 3
    assert store.counts() == {"complete": 3, "failed": 0, "running": 0, "waiting": 0}
    trials = store.trials()
    assert [trial.values for trial in trials] == [[24.0, 0.5], [24.0, 0.51], [24.0, 0.52]]
    for trial in trials:
        for name in ("predictions.npz", "adapter.zip"):
            store.artifacts.download([trial], f"{trial.user_attrs[KEY]}-{name}", tmp_path / f"{trial.number}-{name}")
        assert (tmp_path / f"{trial.number}-predictions.npz").read_text() == trial.user_attrs[KEY]
        assert trial.user_attrs[WORKER]["pid"] > 0
    assert not any((tmp_path / "trials").iterdir())
    assert events[-1].text == "search accuracy 0.5200, 24 parameters"
    assert work_through() == []


def test_a_crash_after_a_training_is_not_attributed_to_it(queue: Run, work_through: Run) -> None:
    """While it runs alone an attempt is marked with the index of its training; once it has left the gate, the next
    solo trial may crash the process while this one still uploads its adapter."""
    store = queue({"seed": [0]})
    during = []

    def look(spec: Any, stop: Run) -> None:
        during.extend(trial.user_attrs[ALONE] for trial in store.trials())

    work_through(look)
    assert during == [0]
    assert [trial.user_attrs[ALONE] for trial in store.trials()] == [None]


def test_a_failure_is_recorded_and_passed_over(queue: Run, work_through: Run) -> None:
    """Wrong input is recorded by its message, a crash by its type and message with the traceback in the log, a trial
    that says it failed by its own reason; the others complete."""
    store = queue({"seed": [0, 1, 2, 3]})

    def fail(spec: Any, stop: Run) -> Any:
        if spec.seed == 0:
            raise ValueError("task.max_length must be at least 3, got 1")
        if spec.seed == 1:
            raise RuntimeError("shapes differ")
        if spec.seed == 2:
            return trial_result(spec)
        return None

    def trial_result(spec: Any) -> Any:

        return TrialResult(
            key=spec.key, spec=spec.model_dump(mode="json"), status="failed", reason="the loss became nan"
        )

    events = work_through(fail)
    assert [r.reason for r in store.results()] == [
        "task.max_length must be at least 3, got 1",
        "RuntimeError: shapes differ",
        "the loss became nan",
        "",
    ]
    assert store.counts() == {"complete": 1, "failed": 3, "running": 0, "waiting": 0}
    assert [trial.state.name for trial in store.trials()] == ["FAIL", "FAIL", "FAIL", "COMPLETE"]
    assert "Traceback" in next(event.text for event in events if isinstance(event, LogMessage))
    assert [event.text for event in events if isinstance(event, TrialEnded)][2] == "failed: the loss became nan"
    assert work_through() == [], "a recorded failure is not run again"


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's record of the memory in use")
def test_too_little_memory_is_a_recorded_failure(queue: Run, work_through: Run) -> None:
    """The process's limit (ulimit -v) is reached during a training: one line, and the next trial is trained."""
    import torch

    store = queue()
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)

    def hungry(spec: Any, stop: Run) -> None:
        if spec.seed == 1:
            resource.setrlimit(resource.RLIMIT_AS, (used + 2**31, before[1]))
            try:
                torch.empty(2**33)
            finally:
                resource.setrlimit(resource.RLIMIT_AS, before)

    events = work_through(hungry)
    assert store.counts() == {"complete": 2, "failed": 1, "running": 0, "waiting": 0}
    (reason,) = [result.reason for result in store.results() if result.status == "failed"]
    assert reason.startswith("not enough memory (")
    assert reason.endswith("): use a smaller training.batch_size, or fewer workers at a time")
    assert "\n" not in reason
    (line,) = [event.text for event in events if isinstance(event, TrialEnded) and "memory" in event.text]
    assert line == f"failed: {reason}"


def test_a_failure_of_wandb_reaches_the_console(
    queue: Run, work_through: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Not only log.txt; once, and the trials are trained."""

    class Broken(NullTracker):
        def log(self, progress: Progress) -> None:
            raise ConnectionError("no route")

    store = queue()
    monkeypatch.setattr("rankopt.study.worker.make_tracker", lambda *_: Broken())
    events = work_through()
    console = Console(file=io.StringIO(), width=200)
    with Display(console, tmp_path / "log.txt", store.counts()) as display:
        for event in events:
            display.show(event)
    for text in (console.file.getvalue(), (tmp_path / "log.txt").read_text()):  # type: ignore[attr-defined]
        assert text.count("W&B failed and is turned off for this worker: ConnectionError: no route") == 1
    assert store.counts()["complete"] == 3


def test_a_full_disk_is_not_the_trials_fault(queue: Run, work_through: Run) -> None:
    """The trial goes back into the queue with nothing recorded against it, its folder stays, the worker says why in
    one line and stops; later it is run as if nothing had been."""
    store = queue()

    def full(spec: Any, stop: Run) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device", "/x/checkpoint")

    events = work_through(full)
    assert kinds(events) == [TrialStarted, WorkerStopped]
    assert events[-1].text == "No space left on device (/x/checkpoint); fix it and run again"
    assert store.counts() == {"complete": 0, "failed": 0, "running": 0, "waiting": 3}
    assert (store.folder / "trials" / store.trials()[0].user_attrs[KEY] / "adapter").exists()
    work_through()
    assert store.counts()["complete"] == 3


def test_a_storage_that_fails_is_one_line(queue: Run, work_through: Run, tmp_path: Path) -> None:
    """A database that fails while a trial runs stops the worker with one line; once it works, the study completes."""
    store = queue()
    other = sqlite3.connect(tmp_path / "study.db")

    def break_it(spec: Any, stop: Run) -> Any:
        other.execute("ALTER TABLE trial_user_attributes RENAME TO elsewhere")
        other.commit()

    events = work_through(break_it)
    assert kinds(events) == [TrialStarted, WorkerStopped]
    assert events[-1].text == "storage error (no such table: trial_user_attributes): fix it and run again"
    other.execute("ALTER TABLE elsewhere RENAME TO trial_user_attributes")
    other.commit()
    dead = store.trials(TrialState.RUNNING)[0]
    store.storage.set_trial_user_attr(dead._trial_id, WORKER, dead.user_attrs[WORKER] | {"started": 0.0})
    work_through()
    assert store.counts() == {"complete": 3, "failed": 0, "running": 0, "waiting": 0}


def test_an_interrupted_trial_is_requeued(queue: Run, work_through: Run) -> None:
    """SIGTERM reaches the trial through `stop`; the trial waits again, and the worker ends."""
    store = queue()

    def interrupted(spec: Any, stop: Run) -> Any:
        assert not stop()
        signal.raise_signal(signal.SIGTERM)
        assert stop()
        raise InterruptedTrialError

    assert kinds(work_through(interrupted)) == [TrialStarted, TrialInterrupted]
    assert store.counts() == {"complete": 0, "failed": 0, "running": 0, "waiting": 3}
    assert store.trials()[0].state == TrialState.FAIL
    assert store.trials()[0].user_attrs[INTERRUPTED]
    assert RESULT not in store.trials()[0].user_attrs
    work_through()
    assert store.counts()["complete"] == 3


def test_an_interrupted_trial_can_be_taken_at_once(queue: Run, work_through: Run, monkeypatch: Any) -> None:
    """Another worker that takes the next attempt at once runs it, and does not skip it as a duplicate."""
    store = queue({"seed": [0]})
    nested = []

    def requeue_and_run(store: StudyStore, trial: Any) -> None:
        requeue(store, trial)
        monkeypatch.setattr(recovery, "requeue", requeue)
        monkeypatch.setattr("time.sleep", lambda seconds: signal.raise_signal(signal.SIGTERM))  # no second look
        nested.extend(work_through())

    monkeypatch.setattr(recovery, "requeue", requeue_and_run)

    def interrupted(spec: Any, stop: Run) -> Any:
        raise InterruptedTrialError

    work_through(interrupted)
    assert kinds(nested) == [TrialStarted, TrialEnded]
    assert store.counts() == {"complete": 1, "failed": 0, "running": 0, "waiting": 0}


def test_duplicates_are_trained_once(queue: Run, work_through: Run) -> None:
    """Two waiting attempts at one key (two stores that queued at the same moment) are one trial."""
    store = queue({"seed": [0]})
    store.study.enqueue_trial({}, user_attrs=store.trials()[0].user_attrs)
    assert kinds(work_through()) == [TrialStarted, TrialEnded]
    assert [trial.state.name for trial in store.trials()] == ["COMPLETE", "FAIL"]


def test_a_duplicate_of_a_failure_is_skipped(queue: Run, work_through: Run) -> None:
    """Two workers requeued the same lost attempt, and the first of the two attempts has failed since."""
    store = queue({"seed": [0]})
    store.study.tell(take(store), state=TrialState.FAIL)
    requeue(store, store.trials()[0])
    requeue(store, store.trials()[0])

    def fail(spec: Any, stop: Any) -> None:
        raise ValueError("the loss became nan")

    assert kinds(work_through(fail)).count(TrialStarted) == 1
    assert [len(recorded(trial)) for trial in store.trials()] == [0, 1, 0]
    assert SKIPPED in store.trials()[2].user_attrs
    assert retry_failed(store) == 1
    assert kinds(work_through(fail)).count(TrialStarted) == 1, "which is another matter"


def test_a_duplicate_of_a_running_attempt_is_skipped(queue: Run, work_through: Run, monkeypatch: Any) -> None:
    """The later attempt does not train beside the earlier one."""
    store = queue({"seed": [0]})
    attrs = dict(store.trials()[0].user_attrs)
    number = store.trials()[0]._trial_id
    store.storage.set_trial_state_values(number, TrialState.RUNNING)
    store.storage.set_trial_user_attr(number, WORKER, this_process())
    store.study.enqueue_trial({}, user_attrs=attrs)
    monkeypatch.setattr("time.sleep", lambda seconds: signal.raise_signal(signal.SIGTERM))  # one look is enough
    assert kinds(work_through()) == []
    assert [trial.state.name for trial in store.trials()] == ["RUNNING", "FAIL"]


def test_a_duplicate_of_a_complete_attempt_is_skipped(
    queue: Run, work_through: Run, result: Run, study_of: Run
) -> None:
    """Also when the complete attempt is the later one."""
    store = queue({"seed": [0]})
    made = result(study_of({"seed": [0]})[1][0][1])
    attrs = store.trials()[0].user_attrs | {RESULT: made.model_dump(mode="json")}
    store.study.add_trial(create_trial(state=TrialState.COMPLETE, values=[0.75, 24.0], user_attrs=attrs))
    assert kinds(work_through()) == []
    assert [trial.state.name for trial in store.trials()] == ["FAIL", "COMPLETE"]


def test_trials_outside_the_plan_are_skipped(queue: Run, work_through: Run, study_of: Run) -> None:
    """After a grid was narrowed only its own trials run; widened again, the skipped ones come back."""
    store = queue({"seed": [0, 1, 2, 3]})
    study, trials = study_of({"seed": [2]})
    store.create(study)
    assert enqueue(store, trials) == 0
    assert [event.label[-1] for event in work_through() if isinstance(event, TrialEnded)] == ["2"]
    assert store.counts() == {"complete": 1, "failed": 0, "running": 0, "waiting": 0}
    study, trials = study_of({"seed": [0, 1, 2, 3]})
    store.create(study)
    assert enqueue(store, trials) == 3
    work_through()
    assert store.counts()["complete"] == 4


def test_progress_events_are_rare(queue: Run, work_through: Run) -> None:
    """Five thousand quick steps send few events, and the last step sends one."""
    queue({"seed": [0]})
    steps = [event.progress.step for event in work_through(steps=5000) if isinstance(event, TrialAdvanced)]
    assert steps[-1] == 5000
    assert len(steps) < 50


def test_a_corrupt_checkpoint_loses_nothing(queue: Run, work_through: Run, tmp_path: Path) -> None:
    """The trial goes back into the queue, its folder stays as it is, and the line says what to do."""
    store = queue({"seed": [0]})

    def corrupt(spec: Any, stop: Run) -> Any:
        raise CorruptCheckpointError("checkpoint x is corrupt: delete that folder and run again")

    events = work_through(corrupt)
    assert kinds(events) == [TrialStarted, WorkerStopped]
    assert events[-1].text == "checkpoint x is corrupt: delete that folder and run again"
    assert store.counts()["waiting"] == 1
    assert len(list((tmp_path / "trials").iterdir())) == 1


def test_an_unforeseen_error_keeps_the_checkpoints(queue: Run, work_through: Run, tmp_path: Path) -> None:
    """So that another attempt continues from them."""
    queue({"seed": [0]})

    def crash(spec: Any, stop: Run) -> Any:
        raise RuntimeError("boom")

    work_through(crash)
    assert len(list((tmp_path / "trials").iterdir())) == 1


def test_a_result_recorded_before_a_crash_is_kept(queue: Run, work_through: Run, result: Run) -> None:
    """A worker crashed between recording a result and closing its attempt: the next one trains nothing."""
    store = queue({"seed": [0]})
    trial = take(store)
    from rankopt.core.spec import decode
    from rankopt.core.trial_spec import TrialSpec

    spec = decode(TrialSpec, trial.user_attrs["spec"])
    trial.set_user_attr(RESULT, result(spec, 0.75).model_dump(mode="json"))
    trial.set_user_attr(WORKER, {**this_process(), "pid": 2**22 + 1})
    assert kinds(work_through()) == []
    assert store.counts() == {"complete": 1, "failed": 0, "running": 0, "waiting": 0}
    assert store.trials(TrialState.COMPLETE)[0].values[0] == 0.75
