"""One worker process: take an attempt, train it, record it, until nothing is left; several at once with `together`."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from functools import partial
from threading import Event as Flag
from threading import Thread
from typing import TYPE_CHECKING, Any

import optuna
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.trial import TrialState
from sqlalchemy.exc import SQLAlchemyError

from rankopt.study.attempts import ALONE
from rankopt.study.database import PATIENCE, is_outage, storage_failure
from rankopt.study.events import (
    Event,
    Message,
    PlanExtended,
    TrialEnded,
    TrialInterrupted,
    WorkerStopped,
)
from rankopt.study.followups import follow
from rankopt.study.job import Job
from rankopt.study.objective import AttemptFailedError, AttemptInterruptedError, Objective
from rankopt.study.queue import propose, skip, skip_reason, take
from rankopt.study.recovery import give_back, must_run_alone, recover
from rankopt.study.solo_gate import SoloGate
from rankopt.study.storage import StudyStore
from rankopt.study.tracking import SafeTracker, make_tracker

if TYPE_CHECKING:
    from rankopt.training.joint.joint_training import JointTraining
    from rankopt.training.lane import Lane

POLL = 0.5
"""Seconds between two looks at what other workers do."""
OUTAGES = 3
"""Outages in a row, each of which broke a transaction, after which a worker gives up."""
Tell = Callable[[Event], None]
Stop = Callable[[], bool]


def work(job: Job, tell: Tell) -> None:
    """The body of a worker process.

    SIGTERM, or the parent's death, ends it after the current step; the checkpoint is written and the trial requeued.
    The worker ignores SIGINT, which the parent handles.
    """
    stop = _stop_signal()
    import torch

    torch.set_num_threads(job.threads)
    if job.options.together == 1:
        _Loop(job, tell, stop).run()
        return
    from rankopt.training.joint.joint_training import JointTraining

    joint, gate, crashed = JointTraining(lambda line: tell(Message(job.slot, text=line))), SoloGate(), Flag()

    def run_lane(number: int) -> None:
        mine = replace(job, slot=job.slot * job.options.together + number)
        try:
            _Loop(mine, tell, lambda: stop() or crashed.is_set(), joint, gate).run()
        except BaseException:  # it ends the process, once the other lanes have requeued their trials
            crashed.set()
            raise

    with ThreadPoolExecutor(job.options.together) as lanes:
        ends = [lanes.submit(run_lane, number) for number in range(job.options.together)]
    for end in ends:
        end.result()


class _Loop:
    """Attempts one after another, with a storage connection of its own.

    Args:
        job: the worker's job.
        tell: receives events.
        stop: whether to end.
        joint: joins the passes of this process's attempts; None when there is one at a time.
        gate: lets an attempt run alone in this process.
    """

    def __init__(
        self, job: Job, tell: Tell, stop: Stop, joint: JointTraining | None = None, gate: SoloGate | None = None
    ) -> None:
        options = job.options
        self.job, self.tell, self.stop, self.joint, self.gate = job, tell, stop, joint, gate or SoloGate()
        self.store = StudyStore(
            options.url, job.study, options.folder, heartbeat=options.heartbeat, grace=options.grace,
            artifacts=options.artifacts, patience=PATIENCE, known=True, say=self._say,
        )  # fmt: skip
        study = self.store.open()
        tracker = SafeTracker(make_tracker(options.wandb, options.folder, study.wandb), self._say)
        self.objective = Objective(job, self.store, study, tracker, tell, stop, self._lane, self._wait)
        self.broken: optuna.Trial | None = None

    def run(self) -> None:
        """Work until nothing is left, the worker is stopped, or the storage fails."""
        outages = 0
        while not self.stop():
            try:
                if self.broken is not None:
                    give_back(self.store, self.broken)
                    self.broken = None
                if not self._step():
                    return
                outages = 0
            except UpdateFinishedTrialError:
                self._say(f"trial lost: no heartbeat for {self.job.options.grace} s, so another worker took it over")
            except Exception as error:
                reason = storage_failure(error)
                if not reason:
                    raise
                outages += 1
                if not is_outage(error) or outages > OUTAGES:
                    self.tell(WorkerStopped(self.job.slot, text=f"storage error ({reason}): fix it and run again"))
                    return

    def _step(self) -> bool:
        """Make one attempt, or wait for other workers. Returns whether there may be more to do."""
        store = self.store
        unfinished = recover(store)
        trial = take(store)
        if trial is None and not unfinished and store.wants():  # a search learns from its trials in order
            propose(store)
            trial = take(store)
        if trial is not None:
            return self._attempt(trial)
        if unfinished or store.trials(TrialState.RUNNING):
            time.sleep(POLL)
            return True
        return self._follow()  # a worker may have crashed before it queued what its result asks for

    def _attempt(self, trial: optuna.Trial) -> bool:
        """Make an attempt, under a heartbeat, and close it. Returns whether the worker can go on."""
        study = self.store.study
        if reason := skip_reason(self.store, self.store.frozen(trial)):
            skip(self.store, trial, reason)
            return True
        try:
            with _heartbeat(self.store, trial):
                values = self.objective(trial)
            study.tell(trial, values, skip_if_finished=True)
        except optuna.TrialPruned as stopped:
            study.tell(trial, state=TrialState.PRUNED, skip_if_finished=True)
            self.tell(TrialEnded(self.job.slot, trial.number, self.objective.label, text=str(stopped)))
        except AttemptFailedError:
            study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)
        except AttemptInterruptedError as error:
            give_back(self.store, trial)
            event = partial(WorkerStopped, text=str(error)) if str(error) else TrialInterrupted
            self.tell(event(self.job.slot, trial.number, self.objective.label))
            return False
        except Exception as error:
            if storage_failure(error):
                self.broken = trial  # given back once the storage answers
            elif not isinstance(error, UpdateFinishedTrialError):
                study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)
            raise
        self._follow()
        return True

    def _follow(self) -> bool:
        """Queue what the results so far ask for. Returns whether that was anything."""
        if follow(self.store):
            self.tell(PlanExtended(self.job.slot, trials=len(self.store.plan())))
            return True
        return False

    @contextmanager
    def _lane(self, trial: optuna.Trial, index: int, label: str) -> Iterator[Lane | None]:
        """The lane of a training: alone if no other trial may be in the process."""
        alone = self.joint is None or must_run_alone(self.store, self.store.frozen(trial))
        if alone and self.joint is not None:
            self.tell(Message(self.job.slot, trial.number, label, text="its worker crashed: trying again alone"))
        with self.gate.enter(alone), self.joint.lane() if self.joint else nullcontext() as lane:
            if alone:
                trial.set_user_attr(ALONE, index)
            yield lane
            if alone:  # from here on a crash may be the next solo trial's fault
                # a broken connection must not cost the trained result: recording that waits for the server
                with suppress(StorageInternalError, SQLAlchemyError):
                    trial.set_user_attr(ALONE, None)

    def _wait(self) -> None:
        recover(self.store)
        time.sleep(POLL)

    def _say(self, text: str) -> None:
        self.tell(Message(self.job.slot, text=text))


@contextmanager
def _heartbeat(store: StudyStore, trial: optuna.Trial) -> Iterator[None]:
    """Record a heartbeat of an attempt at regular intervals."""
    ended = Flag()

    def beat() -> None:
        while not ended.wait(store.heartbeat.total_seconds()):
            with suppress(StorageInternalError, SQLAlchemyError):  # the next one may succeed
                store.storage.record_heartbeat(trial._trial_id)
        store.storage.remove_session()

    thread = Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _stop_signal() -> Stop:
    flags: list[Any] = []
    parent = os.getppid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: flags.append(True))
    return lambda: bool(flags) or os.getppid() != parent
