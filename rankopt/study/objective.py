"""One attempt: find out which trial it is, train it, record the results, return the values for Optuna."""

from __future__ import annotations

import shutil
import time
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

import optuna
from optuna.trial import TrialState
from pydantic import ValidationError

from rankopt.analysis.search import configuration
from rankopt.core.errors import first_line, violations
from rankopt.core.memory import is_out_of_memory
from rankopt.core.progress import Control, Progress
from rankopt.core.result import TrialResult
from rankopt.core.spec import content_hash, decode
from rankopt.core.study_spec import StudySpec
from rankopt.core.trial_spec import TrialSpec
from rankopt.study.attempts import KEY, SPEC, recorded, result_slot
from rankopt.study.database import is_storage_error
from rankopt.study.early_stopping import EarlyStopping
from rankopt.study.events import Event, LogMessage, Message, TrialAdvanced, TrialEnded, TrialStarted
from rankopt.study.job import Job
from rankopt.study.plan import InvalidTrialError, validated
from rankopt.study.proposals import propose
from rankopt.study.storage import StudyStore
from rankopt.study.stored_records import read_result, record_of
from rankopt.study.tracking import Tracker

if TYPE_CHECKING:
    from rankopt.training.lane import Lane

LaneMaker = Callable[[optuna.Trial, int, str], "AbstractContextManager[Lane | None]"]
"""The lane in which an attempt trains: called with the attempt, the index of the training and its label."""


class AttemptFailedError(Exception):
    """The attempt's failure is recorded."""


class AttemptInterruptedError(Exception):
    """The attempt was stopped and must be requeued; the text says why the worker cannot go on, if it cannot."""


class Objective:
    """Called with an attempt; trains it and returns its values.

    Args:
        job: the worker's job.
        store: the study, open.
        study: its spec.
        tracker: records every training.
        tell: receives events.
        stop: whether the worker must end.
        lane: see `LaneMaker`.
        wait: called repeatedly while another worker trains the same trial.
    """

    def __init__(
        self, job: Job, store: StudyStore, study: StudySpec, tracker: Tracker, tell: Callable[[Event], None],
        stop: Callable[[], bool], lane: LaneMaker, wait: Callable[[], object],
    ) -> None:  # fmt: skip
        self.job, self.store, self.study, self.tracker, self.tell, self.stop = job, store, study, tracker, tell, stop
        self.lane, self.wait = lane, wait
        self.label = ""

    def __call__(self, trial: optuna.Trial) -> list[float]:
        """Train a trial, several times where the study repeats its trials.

        Raises:
            optuna.TrialPruned: it was stopped early.
            AttemptFailedError: a training failed; the failure is recorded.
            AttemptInterruptedError: it must be requeued.
        """
        stopping = EarlyStopping(trial, self.store, self.study)
        trainings = self.study.trainings(self._spec(trial))
        results: list[TrialResult] = []
        for index, spec in enumerate(trainings):
            self.label = trial_label(self.study, spec)
            last = index + 1 == len(trainings)
            result = self._known(trial, index, spec, last) or self._train(trial, index, spec, last, stopping)
            if result.status == "failed":
                raise AttemptFailedError
            results.append(result)
            stopping.trained([result.score("search") for result in results], last)
        stopping.constrain(max(result.own.kept for result in results))
        values = {
            "score": fmean(result.score("search") for result in results),
            "parameters": fmean(result.own.kept for result in results),
        }
        return [values[name] for name in self.study.objectives]

    def _spec(self, trial: optuna.Trial) -> TrialSpec:
        """The trial that a grid queued, or that the sampler proposes."""
        if self.store.search.trials is None:
            return decode(TrialSpec, trial.user_attrs[SPEC])
        data = self.study.plain({**propose(self.study.space, trial), **self.study.repeats()[0]})
        try:
            spec = validated(self.study.with_contents(decode(TrialSpec, data)))
        except (ValidationError, InvalidTrialError) as error:
            found = error.violations if isinstance(error, InvalidTrialError) else violations(error, TrialSpec)
            self.label, key = "proposal", content_hash(data)
            trial.set_user_attr(SPEC, data)
            trial.set_user_attr(KEY, key)
            reason = "; ".join(map(str, found))
            self._record(trial, 0, TrialResult(key=key, spec=data, status="failed", reason=reason), last=True)
            raise AttemptFailedError from None
        trial.set_user_attr(SPEC, spec.plain)
        trial.set_user_attr(KEY, spec.key)
        while any(other.user_attrs.get(KEY) == spec.key for other in self._running_before(trial)):
            if self.stop():  # another worker trains the same trial; its result is reused
                raise AttemptInterruptedError
            self.wait()
        return spec

    def _running_before(self, trial: optuna.Trial) -> list[optuna.trial.FrozenTrial]:
        return [other for other in self.store.trials(TrialState.RUNNING) if other.number < trial.number]

    def _known(self, trial: optuna.Trial, index: int, spec: TrialSpec, last: bool) -> TrialResult | None:
        """A result that is recorded already: by an earlier attempt, or because a search proposed the same trial before.

        A failure recorded by another proposal is reused; a failure of this proposal is not, so that it can be retried.
        """
        own = self.store.frozen(trial)
        if len(recorded(own)) > index:
            shutil.rmtree(self._folder(spec), ignore_errors=True)
            return read_result(trial.number, recorded(own)[index])
        if self.store.search.trials is None:
            return None
        for other in self.store.trials(TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL):
            for data in recorded(other):
                if data["key"] == spec.key and self.store.identity(other) != self.store.identity(own):
                    result = read_result(other.number, data)
                    trial.set_user_attr(result_slot(index), data)
                    text = f"the same as trial {other.number}, not trained again"
                    self._say(trial, text, over=last and result.status == "complete")
                    return result
        return None

    def _train(
        self, trial: optuna.Trial, index: int, spec: TrialSpec, last: bool, stopping: EarlyStopping
    ) -> TrialResult:
        """Train and score a trial, and record the result."""
        from rankopt.training import trial as training  # slow to import, and the parent process does not need it
        from rankopt.training.train import InterruptedTrialError

        folder = self._folder(spec)
        self.tell(TrialStarted(self.job.slot, trial.number, self.label))
        result: TrialResult | None = None
        keep = False
        try:
            self.tracker.start(self.job.study, trial.number, self.label, spec)
            with self.lane(trial, index, self.label) as lane:
                options, observe = self.job.options, self._observer(trial, stopping)
                control = Control(observe, self.stop, options.checkpoint_steps, stopping.evaluations)
                result = training.run_trial(spec, folder, control, lane, options.device)
            if result.status == "complete":
                for adapter in sorted({point.adapter for point in result.points}):
                    self.store.artifacts.upload(trial, folder / adapter, spec.key)
                self.store.artifacts.upload(trial, folder / "predictions.npz", spec.key)
        except InterruptedTrialError:
            raise AttemptInterruptedError from None
        except optuna.TrialPruned:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        except OSError as error:  # a full disk, a lost mount, a corrupt checkpoint: not the trial's fault
            where = error.filename or self.job.options.folder
            text = f"{error.strerror} ({where}); fix it and run again" if error.strerror else str(error)
            raise AttemptInterruptedError(text) from None
        except Exception as error:
            if is_storage_error(error):
                raise
            keep = True  # after an unforeseen error the checkpoints may serve another attempt
            result = TrialResult(key=spec.key, spec=spec.plain, status="failed", reason=_reason(error))
            self.tell(LogMessage(self.job.slot, trial.number, self.label, text=traceback.format_exc()))
        finally:
            self.tracker.finish(result)
        self._record(trial, index, result, last)
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)
        return result

    def _observer(self, trial: optuna.Trial, stopping: EarlyStopping) -> Callable[[Progress], None]:
        """What a training calls after each step and evaluation."""
        last_event = 0.0

        def observe(progress: Progress) -> None:
            nonlocal last_event
            self.tracker.log(progress)
            now = time.monotonic()
            if now - last_event > 0.2 or progress.step == progress.steps:
                last_event = now
                self.tell(TrialAdvanced(self.job.slot, trial.number, self.label, progress=progress))
            if progress.stage == "score":
                stopping.evaluated(progress)

        return observe

    def _record(self, trial: optuna.Trial, index: int, result: TrialResult, last: bool) -> None:
        trial.set_user_attr(result_slot(index), record_of(result))
        if result.status == "failed":  # a search proposes another trial instead
            self._say(trial, f"failed: {result.reason}", over=self.store.search.trials is None)
        else:
            score, kept = result.score("search"), result.own.kept
            self._say(trial, f"search {result.metrics[0]} {score:.4f}, {kept:,} parameters", over=last)

    def _say(self, trial: optuna.Trial, text: str, *, over: bool) -> None:
        """Report the outcome of a training, and whether its trial is over."""
        event = TrialEnded if over else Message
        self.tell(event(self.job.slot, trial.number, self.label, text=text))

    def _folder(self, spec: TrialSpec) -> Path:
        return self.job.options.folder / "trials" / spec.key


def _reason(error: Exception) -> str:
    """Why a training failed, for its result."""
    if is_out_of_memory(error):
        return f"not enough memory ({first_line(error)}): use a smaller training.batch_size, or fewer workers at a time"
    return str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"


def trial_label(study: StudySpec, spec: TrialSpec) -> str:
    """A trial in a few words: task, method, budget, seed, and its values in the study's other dimensions.

    Example:
        >>> base = {"task": {"name": "rte"}, "allocator": {"name": "static"}}
        >>> study = StudySpec(name="s", base=base, space={"training.steps": [100, 200]})
        >>> trial_label(study, study.trial({"training.steps": 100}))
        'rte static seed 0, steps 100'
    """
    budget = spec.budget
    amount = ""
    if budget:
        name = next(name for name in ("mean_rank", "ranks", "parameters") if getattr(budget, name) is not None)
        amount = f" {name.replace('_', ' ')} {getattr(budget, name):g}"
    words = configuration(study, spec.plain)
    return f"{spec.task.name} {spec.method_label}{amount} seed {spec.seed}{f', {words}' if words else ''}"
