"""One worker process: take a waiting trial, run it, record it, until nothing is left."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import optuna
from optuna.trial import TrialState

from rankopt.core.result import Progress, TrialResult
from rankopt.core.spec import TrialSpec, decode
from rankopt.study.storage import INTERRUPTED, KEY, RESULT, SPEC, WORKER, StudyStore, storage_failure, this_worker
from rankopt.study.tracking import Mode, SafeTracker, make_tracker

POLL = 0.5
"""Seconds between looks at the queue while other workers still run trials."""


class Job(NamedTuple):
    """What a worker is told."""

    slot: int
    url: str
    name: str
    folder: Path
    wandb: Mode
    threads: int
    checkpoint_steps: int | None
    heartbeat: int
    grace: int


class Event(NamedTuple):
    """What a worker tells the parent: kind is start, step, end, requeue, log or refuse."""

    worker: int
    kind: str
    trial: int = -1
    label: str = ""
    progress: Progress | None = None
    text: str = ""


class TrialFailedError(Exception):
    """The trial is recorded as failed."""


class StopWorkingError(Exception):
    """This worker can do no more; the trial is back in the queue."""


def work(job: Job, tell: Callable[[Event], None]) -> None:
    """The body of a worker process.

    SIGTERM, or the parent's death, ends it after the current step; the trial's checkpoint is written and the trial
    goes back into the queue. SIGINT is left to the parent.
    """
    stop = _stop_signal()
    import torch

    from rankopt.training.trial import InterruptedTrialError, run_trial

    torch.set_num_threads(job.threads)
    store = StudyStore(job.url, job.name, job.folder, heartbeat=job.heartbeat, grace=job.grace)
    study_spec = store.open()
    tracker = SafeTracker(make_tracker(job.wandb, job.folder), lambda text: tell(Event(job.slot, "log", text=text)))

    def values(result: TrialResult) -> list[float]:
        named = {"score": result.score("search"), "parameters": float(result.own.kept)}
        return [named[name] for name in study_spec.objectives]

    def objective(trial: optuna.Trial) -> list[float]:
        key = trial.user_attrs.get(KEY)
        if key not in store.plan():
            raise optuna.TrialPruned  # an empty ask after the queue ran dry, or a trial that is no longer wanted
        twins = [t for t in store.trials(TrialState.COMPLETE, TrialState.RUNNING) if t.user_attrs.get(KEY) == key]
        twins = [t for t in twins if INTERRUPTED not in t.user_attrs]  # given back, though not yet closed
        if any(t.state == TrialState.COMPLETE or t.number < trial.number for t in twins):
            raise optuna.TrialPruned  # work that another worker has or had
        trial.set_user_attr(WORKER, this_worker())
        if RESULT in trial.user_attrs:  # a worker died between recording it and closing the trial
            recorded = TrialResult.model_validate_json(json.dumps(trial.user_attrs[RESULT]))
            if recorded.status == "complete":
                return values(recorded)
        spec = decode(TrialSpec, trial.user_attrs[SPEC])
        label = trial_label(spec)
        tell(Event(job.slot, "start", trial.number, label))
        folder = job.folder / "trials" / key
        last = 0.0

        def observe(progress: Progress) -> None:
            nonlocal last
            tracker.log(progress)
            now = time.monotonic()
            if now - last > 0.2 or progress.step == progress.steps:
                last = now
                tell(Event(job.slot, "step", trial.number, label, progress))

        result: TrialResult | None = None
        surprised = False
        try:
            tracker.start(job.name, trial.number, label, spec.allocator.name, trial.user_attrs[SPEC])
            result = run_trial(spec, folder, observe=observe, stop=stop, checkpoint_steps=job.checkpoint_steps)
            if result.status == "complete":
                store.upload(trial, folder / "adapter")
                store.upload(trial, folder / "predictions.npz")
        except InterruptedTrialError:
            _give_back(store, trial)
            tell(Event(job.slot, "requeue", trial.number, label))
            raise StopWorkingError from None
        except OSError as error:  # a full disk, a lost mount, a damaged checkpoint: not the trial's fault
            result = None
            _give_back(store, trial)
            place = f" ({error.filename or job.folder}); free or mend it and run again"
            text = f"{error.strerror}{place}" if error.strerror else str(error)
            tell(Event(job.slot, "refuse", trial.number, label, text=text))
            raise StopWorkingError from None
        except Exception as error:
            surprised = True
            result = TrialResult(
                key=key,
                spec=trial.user_attrs[SPEC],
                status="failed",
                reason=str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}",
            )
            tell(Event(job.slot, "log", trial.number, label, text=traceback.format_exc()))
        finally:
            tracker.finish(result)
        trial.set_user_attr(RESULT, result.model_dump(mode="json"))
        if not surprised:  # after an unforeseen error its checkpoints may still serve a second try
            shutil.rmtree(folder, ignore_errors=True)
        if result.status == "failed":
            tell(Event(job.slot, "end", trial.number, label, text=f"failed: {result.reason}"))
            raise TrialFailedError
        score, metric = result.score("search"), result.metrics[0]
        tell(Event(job.slot, "end", trial.number, label, text=f"{metric} {score:.4f}, {result.own.kept:,} parameters"))
        return values(result)

    while not stop():
        try:
            store.recover()
            if store.trials(TrialState.WAITING):
                store.study.optimize(objective, n_trials=1, catch=(TrialFailedError,))
            elif store.trials(TrialState.RUNNING):
                time.sleep(POLL)
            else:
                return
        except StopWorkingError:
            return
        except Exception as error:  # the trial, if any, is taken up again as one of a dead worker
            reason = storage_failure(error)
            if not reason:
                raise
            tell(Event(job.slot, "refuse", text=f"the storage failed ({reason}); mend it and run again"))
            return


def trial_label(spec: TrialSpec) -> str:
    """A trial in a few words.

    Example:
        >>> trial_label(decode(TrialSpec, {"task": {"name": "rte"}, "allocator": {"name": "static"}}))
        'rte static seed 0'
    """
    budget = spec.budget
    amount = ""
    if budget:
        name = next(name for name in ("mean_rank", "ranks", "parameters") if getattr(budget, name) is not None)
        amount = f" {name.replace('_', ' ')} {getattr(budget, name):g}"
    return f"{spec.task.name} {spec.allocator.name}{amount} seed {spec.seed}"


def _give_back(store: StudyStore, trial: optuna.Trial) -> None:
    trial.set_user_attr(INTERRUPTED, True)
    store.requeue(store.storage.get_trial(trial._trial_id))


def _stop_signal() -> Callable[[], bool]:
    flags: list[Any] = []
    parent = os.getppid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: flags.append(True))
    return lambda: bool(flags) or os.getppid() != parent
