"""What a worker process is told, and what it tells."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from rankopt.core.result import Progress
from rankopt.study.tracking import Mode


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
    artifacts: str | None = None
    together: int = 1


class Event(NamedTuple):
    """What a worker tells the parent: kind is start, step, end, more, requeue, say, log or refuse.

    Of "more" the text is the number of trials that are planned now.
    """

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
