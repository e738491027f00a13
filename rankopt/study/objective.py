"""One trial of a study, from Optuna's ask to the values it is told."""

from __future__ import annotations

import json
import shutil
import time
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from statistics import fmean
from typing import TYPE_CHECKING, Any

import optuna
from optuna.trial import FrozenTrial, TrialState
from pydantic import ValidationError

from rankopt.core.problems import problems
from rankopt.core.result import Progress, TrialResult
from rankopt.core.study_spec import StudySpec
from rankopt.core.trial_spec import TrialSpec, content_hash, decode
from rankopt.search.pruners import Dominated, Interim, build_pruner
from rankopt.study.attempts import (
    ALONE,
    CONTINUES,
    DROPPED,
    INTERIM,
    INTERRUPTED,
    KEY,
    SPEC,
    fates,
    has_failed,
    recorded,
    result_slot,
)
from rankopt.study.events import (
    Event,
    LogMessage,
    Message,
    TrialAdvanced,
    TrialEnded,
    TrialInterrupted,
    TrialStarted,
    WorkerStopped,
)
from rankopt.study.job import Job
from rankopt.study.plan import InvalidTrialError, validated
from rankopt.study.proposals import propose
from rankopt.study.storage import StudyStore
from rankopt.study.tracking import Tracker

if TYPE_CHECKING:
    from rankopt.training.lane import Lane

LaneMaker = Callable[[bool], "AbstractContextManager[Lane | None]"]
POLL = 0.5
"""Seconds between looks at what other workers do."""


class TrialFailedError(Exception):
    """The trial is recorded as failed."""


class StopWorkingError(Exception):
    """This worker can do no more; the trial is back in the queue."""


class Objective:
    """What Optuna calls with a trial: finds out which training it is, runs it, records it, returns its values.

    Args:
        job: what the worker is told.
        store: the study, open.
        study: its spec.
        tracker: is shown every trial.
        tell: is told what happens.
        stop: whether the worker is to end.
        lane: where a trial is trained: by itself, or among others that are trained at once, unless told True.
    """

    def __init__(
        self, job: Job, store: StudyStore, study: StudySpec, tracker: Tracker, tell: Callable[[Event], None],
        stop: Callable[[], bool], lane: LaneMaker = lambda alone: nullcontext(),
    ) -> None:  # fmt: skip
        self.job, self.store, self.study, self.tracker, self.tell, self.stop = job, store, study, tracker, tell, stop
        self.lane = lane
        self.pruner = build_pruner(store.search.pruner) if store.search.pruner else None

    def __call__(self, trial: optuna.Trial) -> list[float]:
        wanted = self.store.search.trials
        spec = self._planned(trial) if wanted is None else self._proposed(trial, wanted)
        scores, kept = [], []
        trainings = self.study.trainings(spec)
        for place, training in enumerate(trainings):
            last = place + 1 == len(trainings)
            result = self._known(trial, place, training, last) or self._run(trial, place, training, last)
            if result.status == "failed":
                raise TrialFailedError
            scores.append(result.score("search"))
            kept.append(result.own.kept)
            self._race(trial, training, scores, last)
        named = {"score": fmean(scores), "parameters": fmean(kept)}
        self._constrain(trial, max(kept))
        return [named[name] for name in self.study.objectives]

    def _planned(self, trial: optuna.Trial) -> TrialSpec:
        """The trial that a grid queued."""
        key = trial.user_attrs.get(KEY)
        if key not in self.store.plan():
            self._drop(trial, "not planned")  # an empty ask after the queue ran dry, or no longer wanted
        self._leave_to_twins(trial)
        return decode(TrialSpec, trial.user_attrs[SPEC])

    def _proposed(self, trial: optuna.Trial, wanted: int) -> TrialSpec:
        """The trial at the point that Optuna proposes."""
        if KEY in trial.user_attrs:
            self._leave_to_twins(trial)
        else:
            earlier = fates(other for other in self.store.trials() if other.number < trial.number)
            if sum(fate != "failed" for fate in earlier.values()) >= wanted:
                self._drop(trial, "not wanted")  # several workers saw the same gap
        data = self.study.plain({**propose(self.study.space, trial), **self.study.repeats()[0]})
        try:
            spec = validated(self.study.with_contents(decode(TrialSpec, data)))
        except (ValidationError, InvalidTrialError) as error:
            found = error.problems if isinstance(error, InvalidTrialError) else problems(error, TrialSpec)
            trial.set_user_attr(SPEC, data)
            trial.set_user_attr(KEY, content_hash(data))
            failure = TrialResult(key=content_hash(data), spec=data, status="failed", reason="; ".join(map(str, found)))
            self._record(trial, 0, failure, last=True, label="proposal")
            raise TrialFailedError from None
        trial.set_user_attr(SPEC, spec.plain)
        trial.set_user_attr(KEY, spec.key)
        while any(twin.user_attrs.get(KEY) == spec.key for twin in self._ahead(trial)):
            if self.stop():  # another worker trains the same; its result will do for both
                self._give_back(trial)
                raise StopWorkingError
            self.store.recover()
            time.sleep(POLL)
        return spec

    def _ahead(self, trial: optuna.Trial) -> list[FrozenTrial]:
        """Running trials that were asked for earlier, unless they are given back though not yet closed."""
        running = (twin for twin in self.store.trials(TrialState.RUNNING) if twin.number < trial.number)
        return [twin for twin in running if not {INTERRUPTED, DROPPED} & twin.user_attrs.keys()]

    def _leave_to_twins(self, trial: optuna.Trial) -> None:
        """Drop a try of work that another worker has or had: two may have queued what fell, and that may have failed
        since."""
        continued = trial.user_attrs.get(CONTINUES, -1)
        failed = (t for t in self.store.trials(TrialState.FAIL) if t.number > continued and has_failed(t))
        twins = [*self._ahead(trial), *self.store.trials(TrialState.COMPLETE, TrialState.PRUNED), *failed]
        mine = self.store.proposal(self.store.storage.get_trial(trial._trial_id))
        if any(self.store.proposal(twin) == mine for twin in twins):
            self._drop(trial, "another try is under way or done")

    def _drop(self, trial: optuna.Trial, why: str) -> None:
        trial.set_user_attr(DROPPED, why)
        raise TrialFailedError  # of what failed no sampler learns

    def _known(self, trial: optuna.Trial, place: int, spec: TrialSpec, last: bool) -> TrialResult | None:
        """A training's result that need not be made again.

        A worker died between recording it and closing the trial, or a search proposed the same trial once more; its
        failure is known too, unless this is another try of that very trial.
        """
        own = trial.user_attrs.get(result_slot(place))
        if own and own["status"] == "complete":
            return _result(own)
        if self.store.search.trials is None:
            return None
        mine = self.store.proposal(self.store.storage.get_trial(trial._trial_id))
        for other in self.store.trials(TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL):
            for data in recorded(other):
                if data["key"] == spec.key and self.store.proposal(other) != mine:
                    trial.set_user_attr(result_slot(place), data)
                    over = last and data["status"] == "complete"
                    text = f"the same as trial {other.number}, not trained again"
                    self._told(trial, text, over, trial_label(spec))
                    return _result(data)
        return None

    def _run(self, trial: optuna.Trial, place: int, spec: TrialSpec, last: bool) -> TrialResult:
        """Train and score a trial at one of its repeats, and record the result."""
        label, folder = trial_label(spec), self.job.options.folder / "trials" / spec.key
        self.tell(TrialStarted(self.job.slot, trial.number, label))
        spoke = 0.0

        def observe(progress: Progress) -> None:
            nonlocal spoke
            self.tracker.log(progress)
            now = time.monotonic()
            if now - spoke > 0.2 or progress.step == progress.steps:
                spoke = now
                self.tell(TrialAdvanced(self.job.slot, trial.number, label, progress=progress))
            if progress.stage == "score":
                self._judge(trial, progress, label)

        from rankopt.training import trial as training  # slow to import, and the parent of the workers does without it

        result: TrialResult | None = None
        surprised = False
        try:
            alone = self.job.options.together == 1 or self._died(trial, label)
            self.tracker.start(self.job.study, trial.number, label, spec)
            with self.lane(alone) as lane:
                if alone:
                    trial.set_user_attr(ALONE, place)
                result = training.run_trial(
                    spec, folder, observe=observe, stop=self.stop,
                    checkpoint_steps=self.job.options.checkpoint_steps, lane=lane,
                    evaluations=self.pruner.evaluations if self.pruner else 0,
                )  # fmt: skip
            if result.status == "complete":
                for adapter in sorted({point.adapter for point in result.points}):
                    self.store.upload(trial, folder / adapter, spec.key)
                self.store.upload(trial, folder / "predictions.npz", spec.key)
        except training.InterruptedTrialError:
            self._give_back(trial)
            self.tell(TrialInterrupted(self.job.slot, trial.number, label))
            raise StopWorkingError from None
        except optuna.TrialPruned:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        except OSError as error:  # a full disk, a lost mount, a damaged checkpoint: not the trial's fault
            self._give_back(trial)
            cure = f" ({error.filename or self.job.options.folder}); free or mend it and run again"
            text = f"{error.strerror}{cure}" if error.strerror else str(error)
            self.tell(WorkerStopped(self.job.slot, trial.number, label, text=text))
            raise StopWorkingError from None
        except Exception as error:
            surprised = True
            reason = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
            result = TrialResult(key=spec.key, spec=spec.plain, status="failed", reason=reason)
            self.tell(LogMessage(self.job.slot, trial.number, label, text=traceback.format_exc()))
        finally:
            self.tracker.finish(result)
        self._record(trial, place, result, last, label)
        if not surprised:  # after an unforeseen error its checkpoints may still serve a second try
            shutil.rmtree(folder, ignore_errors=True)
        return result

    def _died(self, trial: optuna.Trial, label: str) -> bool:
        """Whether a worker died under an earlier try of this training, perhaps of it: then it has to be alone."""
        died = bool(self.store.deaths(self.store.storage.get_trial(trial._trial_id)))
        if died:
            self._told(trial, "its worker died: tried again alone", over=False, label=label)
        return died

    def _judge(self, trial: optuna.Trial, progress: Progress, label: str) -> None:
        """Record what a trial shows while it trains, and stop it where the pruner says so.

        Raises:
            optuna.TrialPruned: it does.
        """
        shown = [*trial.user_attrs.get(INTERIM, []), list(progress.values.values())]
        trial.set_user_attr(INTERIM, shown)
        mine = Interim(len(shown), **progress.values)
        # its pattern is fixed, so what it keeps now is what it will keep; and the others are not to be judged by it
        if self._constrain(trial, mine.parameters) > 0:
            most = self.study.constraints["parameters"]
            self._told(
                trial, f"pruned: {mine.parameters:,.0f} parameters, more than the constraint of {most:,}", label=label
            )
            raise optuna.TrialPruned
        if isinstance(self.pruner, Dominated):
            others = [other for other in self.store.trials() if other.number != trial.number]
            rows = [Interim(n, *row) for o in others for n, row in enumerate(o.user_attrs.get(INTERIM, []), 1)]
            worse = self.pruner.dominated(mine, rows)
        else:
            trial.report(mine.score, mine.evaluation)
            worse = trial.should_prune()
        if worse:
            self._told(trial, f"pruned at evaluation {mine.evaluation}: score {mine.score:.4f}", label=label)
            raise optuna.TrialPruned

    def _constrain(self, trial: optuna.Trial, parameters: float) -> float:
        """Tell the sampler by how much a trial exceeds the study's constraint, if it has one; also returned."""
        if not self.study.constraints:
            return 0.0
        excess = parameters - self.study.constraints["parameters"]
        if "parameters" not in trial.constraints:  # it can be told once
            trial.set_constraint("parameters", excess)
        return excess

    def _race(self, trial: optuna.Trial, spec: TrialSpec, scores: list[float], last: bool) -> None:
        """Compare the trainings of a repeated trial so far with those of the best one, where the pruner does.

        Raises:
            optuna.TrialPruned: they are worse.
        """
        if self.pruner is None or self.pruner.evaluations:
            return
        trial.report(scores[-1], len(scores))
        if not last and trial.should_prune():
            text = f"pruned after {len(scores)} trainings: mean score {fmean(scores):.4f}"
            self._told(trial, text, label=trial_label(spec))
            raise optuna.TrialPruned

    def _record(self, trial: optuna.Trial, place: int, result: TrialResult, last: bool, label: str) -> None:
        trial.set_user_attr(result_slot(place), result.model_dump(mode="json"))
        if result.status == "failed":  # in its place a search proposes another one
            self._told(trial, f"failed: {result.reason}", self.store.search.trials is None, label)
        else:
            score, kept = result.score("search"), result.own.kept
            self._told(trial, f"{result.metrics[0]} {score:.4f}, {kept:,} parameters", last, label)

    def _told(self, trial: optuna.Trial, text: str, over: bool = True, label: str = "") -> None:
        """Say what came of a training, and whether its trial is over."""
        event = TrialEnded if over else Message
        self.tell(event(self.job.slot, trial.number, label, text=text))

    def _give_back(self, trial: optuna.Trial) -> None:
        trial.set_user_attr(INTERRUPTED, True)
        self.store.requeue(self.store.storage.get_trial(trial._trial_id))


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


def _result(data: Any) -> TrialResult:
    return TrialResult.model_validate_json(json.dumps(data))
