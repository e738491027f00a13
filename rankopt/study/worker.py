"""One worker process: take a trial, run it, record it, until nothing is left; with `together`, several at once."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from threading import Event as Flag
from typing import TYPE_CHECKING, Any

from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState

from rankopt.search.pruners import build_pruner
from rankopt.study.database import PATIENCE, storage_failure
from rankopt.study.events import Event, Message, PlanExtended, WorkerStopped
from rankopt.study.followups import follow
from rankopt.study.job import Job
from rankopt.study.objective import POLL, LaneMaker, Objective, StopWorkingError, TrialFailedError
from rankopt.study.proposals import ProposalSampler
from rankopt.study.solo_gate import SoloGate
from rankopt.study.storage import StudyStore
from rankopt.study.tracking import SafeTracker, make_tracker

if TYPE_CHECKING:
    from rankopt.training.lane import Lane


def work(job: Job, tell: Callable[[Event], None]) -> None:
    """The body of a worker process.

    SIGTERM, or the parent's death, ends it after the current step; the trial's checkpoint is written and the trial
    goes back into the queue. SIGINT is left to the parent.
    """
    stop = _stop_signal()
    import torch

    torch.set_num_threads(job.threads)
    if job.options.together == 1:
        _take_trials(job, tell, stop, lambda alone: nullcontext())
        return
    from rankopt.training.joint.joint_training import JointTraining

    joint, died = JointTraining(lambda line: tell(Message(job.slot, text=line))), Flag()
    gate = SoloGate()

    @contextmanager
    def lane(alone: bool) -> Iterator[Lane]:
        with gate.enter(alone), joint.lane() as found:
            yield found

    def take(place: int) -> None:
        mine = replace(job, slot=job.slot * job.options.together + place)
        try:
            _take_trials(mine, tell, lambda: stop() or died.is_set(), lane)
        except BaseException:  # it takes the process with it, once the others have given their trials back
            died.set()
            raise

    with ThreadPoolExecutor(job.options.together) as lanes:
        ends = [lanes.submit(take, place) for place in range(job.options.together)]
    for end in ends:
        end.result()


def _take_trials(job: Job, tell: Callable[[Event], None], stop: Callable[[], bool], lane: LaneMaker) -> None:
    """Trials one after another, with a storage connection of one's own."""

    def say(text: str) -> None:
        tell(Message(job.slot, text=text))

    options = job.options
    store = StudyStore(
        options.url, job.study, options.folder, heartbeat=options.heartbeat, grace=options.grace,
        artifacts=options.artifacts, patience=PATIENCE, known=True, say=say,
    )  # fmt: skip
    study = store.open()
    if store.search.trials is not None:
        store.study.sampler = ProposalSampler(store.search, store.trials)
    if store.search.pruner:
        store.study.pruner = build_pruner(store.search.pruner).build()
    tracker = SafeTracker(make_tracker(options.wandb, options.folder, study.wandb), say)
    objective = Objective(job, store, study, tracker, tell, stop, lane)
    while not stop():
        try:
            store.recover()
            # what fell comes before anything new: a search learns from its trials in order
            if store.trials(TrialState.WAITING) or (store.wants() and not store.fallen()):
                store.study.optimize(objective, n_trials=1, catch=(TrialFailedError,))
                if follow(store):
                    tell(PlanExtended(job.slot, trials=len(store.plan())))
            elif store.trials(TrialState.RUNNING) or store.fallen():
                time.sleep(POLL)
            elif not follow(store):  # a worker may have fallen before it queued what its result asks for
                return
        except StopWorkingError:
            return
        except Exception as error:  # the trial, if any, is taken up again as one of a dead worker
            if isinstance(error, UpdateFinishedTrialError) or str(error).startswith("Cannot tell a "):
                say("its trial was closed meanwhile: it was out of sight for too long, and another worker took it up")
                continue
            reason = storage_failure(error)
            if not reason:
                raise
            tell(WorkerStopped(job.slot, text=f"the storage failed ({reason}); mend it and run again"))
            return


def _stop_signal() -> Callable[[], bool]:
    flags: list[Any] = []
    parent = os.getppid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: flags.append(True))
    return lambda: bool(flags) or os.getppid() != parent
