"""Attempts: which belong together, what state each is in, and which one must be requeued."""

from __future__ import annotations

from typing import Any

import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial

from rankopt.study.attempts import (
    CONTINUES,
    INTERRUPTED,
    KEY,
    ORIGIN,
    SKIPPED,
    attempt_state,
    by_key,
    by_origin,
    counted,
    crashes,
    is_duplicate,
    keys,
    proposal_state,
    recorded,
    result_slot,
    unfinished,
)

GOOD, BAD = {"key": "k", "status": "complete"}, {"key": "k", "status": "failed"}
STATES = {
    "waiting": (TrialState.WAITING, {}),
    "running": (TrialState.RUNNING, {}),
    "complete": (TrialState.COMPLETE, {result_slot(0): GOOD}),
    "pruned": (TrialState.PRUNED, {}),
    "failed": (TrialState.FAIL, {result_slot(0): BAD}),
    "lost": (TrialState.FAIL, {}),
    "interrupted": (TrialState.FAIL, {INTERRUPTED: True}),
    "skipped": (TrialState.FAIL, {SKIPPED: "duplicate"}),
}


def attempt(state: str, number: int = 0, **attributes: Any) -> FrozenTrial:
    optuna_state, attrs = STATES[state]
    values = [0.5] if optuna_state == TrialState.COMPLETE else None
    trial = create_trial(state=optuna_state, values=values, user_attrs={KEY: "k", **attrs, **attributes})
    trial.number = number
    return trial


@pytest.mark.parametrize("state", STATES)
def test_the_state_of_one_attempt(state: str) -> None:
    assert attempt_state(attempt(state)) == state


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        (["lost", "complete"], "complete"),
        (["complete", "failed"], "complete"),
        (["failed", "pruned"], "pruned"),
        (["lost", "running"], "running"),
        (["interrupted", "waiting"], "waiting"),
        (["lost"], "waiting"),
        (["lost", "failed"], "failed"),
        (["failed", "lost"], "waiting"),
    ],
)
def test_the_state_of_a_proposal(states: list[str], expected: str) -> None:
    """A finished attempt counts whatever else happened; a lost one waits for its requeueing."""
    assert proposal_state([attempt(state, number) for number, state in enumerate(states)]) == expected


@pytest.mark.parametrize(
    ("states", "number"),
    [(["lost"], 0), (["interrupted"], 0), (["lost", "lost"], 1), (["failed", "lost"], 1), (["lost", "failed"], None),
     (["lost", "waiting"], None), (["lost", "running"], None), (["lost", "complete"], None), (["pruned"], None)],
)  # fmt: skip
def test_what_must_be_requeued(states: list[str], number: int | None) -> None:
    """The last attempt, if it was lost or interrupted and nothing else is open or finished."""
    found = unfinished([attempt(state, index) for index, state in enumerate(states)])
    assert (None if found is None else found.number) == number


def test_attempts_are_grouped() -> None:
    """By key in a grid, by the first attempt's number in a search; skipped attempts count for nothing."""
    trials = [
        attempt("lost", 0), attempt("skipped", 1), attempt("complete", 2, **{ORIGIN: 0}),
        attempt("waiting", 3, **{KEY: "other"}),
    ]  # fmt: skip
    assert {key: [t.number for t in group] for key, group in by_key(trials).items()} == {"k": [0, 2], "other": [3]}
    assert {key: [t.number for t in group] for key, group in by_origin(trials).items()} == {0: [0, 2], 3: [3]}


def test_duplicates() -> None:
    """The earlier of two running attempts counts; a failure from before a deliberate retry is no duplicate."""
    first, second = attempt("running", 1), attempt("running", 2)
    assert not is_duplicate(first, [first, second])
    assert is_duplicate(second, [first, second])
    assert is_duplicate(attempt("waiting", 3), [attempt("complete", 0)])
    retried = attempt("waiting", 3, **{CONTINUES: 1})
    assert not is_duplicate(retried, [attempt("failed", 1), retried])
    assert is_duplicate(retried, [attempt("failed", 2), retried])


def test_results_of_several_trainings() -> None:
    """They are read in order up to the first gap; crashes are told by the training that they interrupted."""
    trial = attempt("lost", 0, **{result_slot(0): GOOD, result_slot(1): {**GOOD, "key": "l"}, result_slot(3): GOOD})
    assert [result["key"] for result in recorded(trial)] == ["k", "l"]
    assert keys(trial) == ["k", "l"]
    assert counted(trial) == []
    assert crashes([trial, attempt("interrupted", 1)], 2) == [trial]
    assert crashes([trial], 0) == []
