"""Events: they travel between processes, and say what they are about."""

from __future__ import annotations

import pickle

import pytest

from rankopt.core.progress import Progress
from rankopt.study import events


@pytest.mark.parametrize(
    "event",
    [
        events.TrialStarted(1, 2, "rte"),
        events.TrialAdvanced(1, 2, "rte", progress=Progress(1, 2, "train", {"loss": 0.5})),
        events.TrialEnded(1, 2, "rte", text="done"),
        events.TrialInterrupted(1, 2, "rte"),
        events.PlanExtended(1, trials=3),
        events.Message(1, text="a"),
        events.LogMessage(1, text="a"),
        events.WorkerStopped(1, text="a"),
    ],
    ids=lambda event: type(event).__name__,
)
def test_an_event_travels(event: events.Event) -> None:
    assert pickle.loads(pickle.dumps(event)) == event


def test_every_event_is_tested_here() -> None:
    """A new event class must be added to the list above."""
    names = {kind.__name__ for kind in events.Event.__subclasses__()}
    marks = test_an_event_travels.pytestmark  # type: ignore[attr-defined]
    assert names == {type(event).__name__ for event in marks[0].args[1]}


def test_the_subject() -> None:
    assert events.Message(1, text="a").subject == "worker 1"
    assert events.TrialStarted(1, 0, "rte uniform").subject == "trial 0 rte uniform"
