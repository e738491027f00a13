"""What a worker reports to the parent process: one class per event."""

from __future__ import annotations

from dataclasses import dataclass

from rankopt.core.progress import Progress


@dataclass(frozen=True)
class Event:
    """Base of all events.

    Attributes:
        worker: slot of the worker.
        trial: Optuna's number of the attempt; None when the event concerns the worker itself.
        label: the trial in a few words.
    """

    worker: int
    trial: int | None = None
    label: str = ""

    @property
    def subject(self) -> str:
        """What the event is about, as it is printed."""
        return f"worker {self.worker}" if self.trial is None else f"trial {self.trial} {self.label}"


@dataclass(frozen=True)
class TrialStarted(Event):
    """A training begins or continues."""


@dataclass(frozen=True, kw_only=True)
class TrialAdvanced(Event):
    """A training made a step, or was evaluated."""

    progress: Progress


@dataclass(frozen=True, kw_only=True)
class TrialEnded(Event):
    """A trial is over; `text` is its result."""

    text: str


@dataclass(frozen=True)
class TrialInterrupted(Event):
    """A trial was interrupted and requeued."""


@dataclass(frozen=True, kw_only=True)
class PlanExtended(Event):
    """Results asked for further trials; `trials` are planned now."""

    trials: int


@dataclass(frozen=True, kw_only=True)
class Message(Event):
    """A line for the user and the log."""

    text: str


@dataclass(frozen=True, kw_only=True)
class LogMessage(Event):
    """A line for the log alone."""

    text: str


@dataclass(frozen=True, kw_only=True)
class WorkerStopped(Event):
    """The worker cannot go on; the run ends with `text` as its error."""

    text: str
