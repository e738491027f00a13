"""What a study's trials say about themselves: their attributes, which are tries of one proposal, and what became of it.

A trial that died or was given back is followed by a copy, which carries the number of the trial that it continues. So a
proposal is a trial and its copies, and the number of a proposal does not depend on who died on the way.
"""

from __future__ import annotations

import itertools
import socket
from collections.abc import Callable, Iterable
from typing import Any, Literal

import psutil
from optuna.trial import FrozenTrial, TrialState

SPEC, KEY, RESULT, WORKER, INTERRUPTED, PLAN = "spec", "key", "result", "worker", "interrupted", "plan"
ORIGIN = "origin"
"""Number of the trial that a copy continues."""
ALONE = "alone"
"""The number of the training that was begun while none of another trial was in the process: a worker that dies in it
dies of it."""
INDEX = "index"
"""How many proposals were made before a search's trial."""
CONTINUES = "continues"
"""Number of the try that a copy was made of."""
DROPPED = "dropped"
"""Why a trial was put aside untouched: another worker has it, or it is not wanted. It counts for nothing."""
INTERIM = "interim"
"""What a trial showed at its evaluations while it trained."""

Fate = Literal["complete", "pruned", "failed", "running", "waiting"]


def this_worker() -> dict[str, Any]:
    """Who runs a trial: enough to see from the same machine whether it still lives."""
    me = psutil.Process()
    return {"host": socket.gethostname(), "pid": me.pid, "started": me.create_time()}


def is_alive(worker: dict[str, Any]) -> bool:
    """Whether a worker of this machine still runs."""
    try:
        process = psutil.Process(worker["pid"])
        return bool(abs(process.create_time() - worker["started"]) < 1 and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def result_slot(place: int) -> str:
    """The attribute with the result of a trial's training number `place`; there is one, unless the study repeats."""
    return RESULT if place == 0 else f"{RESULT}:{place}"


def recorded(trial: FrozenTrial) -> list[dict[str, Any]]:
    """The results of a trial's trainings so far, in order, as plain data."""
    slots = itertools.takewhile(trial.user_attrs.__contains__, map(result_slot, itertools.count()))
    return [trial.user_attrs[slot] for slot in slots]


def settled(trial: FrozenTrial) -> list[dict[str, Any]]:
    """The results of a search's trial that count: all of a complete one, the failure of a failed one."""
    found = recorded(trial)
    return found if trial.state == TrialState.COMPLETE else [result for result in found if result["status"] == "failed"]


def keys(trial: FrozenTrial) -> list[str]:
    """The keys of a trial's trainings so far, the first of which it has before it is trained."""
    first = [trial.user_attrs[KEY]] if KEY in trial.user_attrs else []
    return list(dict.fromkeys([*first, *(result["key"] for result in recorded(trial))]))


def origin(trial: FrozenTrial) -> int:
    """The number of the proposal that a trial is a try of."""
    return int(trial.user_attrs.get(ORIGIN, trial.number))


def is_open(trial: FrozenTrial) -> bool:
    """Whether a trial waits or runs."""
    return trial.state in (TrialState.WAITING, TrialState.RUNNING)


def proposal_index(trials: Iterable[FrozenTrial], number: int) -> int:
    """How many proposals were made before the trial of a number.

    One that died before it had a spec is none, so that the next one takes its place; but a place that was handed out
    after it stays taken.

    Args:
        trials: of a study, in order.
        number: of the trial that asks.
    """
    index = 0
    for trial in trials:
        void = DROPPED in trial.user_attrs or (trial.state == TrialState.FAIL and KEY not in trial.user_attrs)
        if trial.number < number and origin(trial) == trial.number and not void:
            index = int(trial.user_attrs.get(INDEX, index)) + 1
    return index


def fates(trials: Iterable[FrozenTrial]) -> dict[int, Fate]:
    """What became of every proposal that still counts: the number of its first trial -> the fate of its last try."""
    found: dict[int, Fate] = {}
    for trial in trials:
        fate = _fate(trial)
        if fate and found.get(origin(trial)) not in ("complete", "pruned"):
            found[origin(trial)] = fate
    return found


def has_failed(trial: FrozenTrial) -> bool:
    """Whether a failure is recorded; else it died, perhaps with its result recorded, or was given back."""
    return trial.state == TrialState.FAIL and any(result["status"] == "failed" for result in recorded(trial))


def _fate(trial: FrozenTrial) -> Fate | None:
    if DROPPED in trial.user_attrs:
        return None
    match trial.state:
        case TrialState.COMPLETE:
            return "complete"
        case TrialState.PRUNED:
            return "pruned"
        case TrialState.RUNNING:
            return "running"
        case TrialState.WAITING:
            return "waiting"
        case _:  # without a failure on record it died or was given back, and waits for its copy
            return "failed" if has_failed(trial) else "waiting" if KEY in trial.user_attrs else None


def orphans(trials: Iterable[FrozenTrial], proposal: Callable[[FrozenTrial], str | int]) -> list[FrozenTrial]:
    """Trials that died or were given back and that no later try continues: who was to queue a copy died too.

    Args:
        trials: of a study, in order.
        proposal: what tries of one proposal share.
    """
    last: dict[str | int, FrozenTrial] = {}
    for trial in trials:
        group = proposal(trial)
        going_on = group in last and last[group].state != TrialState.FAIL  # whatever became of a twin of it
        if KEY in trial.user_attrs and DROPPED not in trial.user_attrs and not going_on:
            last[group] = trial
    return [trial for trial in last.values() if trial.state == TrialState.FAIL and not has_failed(trial)]
